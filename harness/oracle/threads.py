"""Limit of one BLAS thread for the oracle's matrix products, which are small.

If worker processes keep all cores busy, several threads of one product spend more time waiting for
each other than computing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from threadpoolctl import threadpool_limits


def one_thread() -> AbstractContextManager[object]:
    """Set every loaded BLAS library to one thread during the ``with`` block, to save time.

    Results do not depend on the limit, which is not always set. OpenBLAS ignores it if another
    thread has set a limit before. If the path of a loaded library is not UTF-8, threadpoolctl
    cannot read it, and there is no limit.
    """
    try:
        limit: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    except UnicodeDecodeError:
        return nullcontext()
    return limit
