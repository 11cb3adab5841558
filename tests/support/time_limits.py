"""Time limits that also hold on slow or busy machines.

A limit detects code that never ends, or whose time grows faster than its input. Limits are in
seconds of a reference machine, which sums a million numbers in :data:`SUM` seconds. A limit that is
exceeded is scaled by the current speed of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

SUM = 0.05


def _slowness(clock: Callable[[], float]) -> float:
    """Return how many times slower than the reference machine this machine is; at least 1."""
    start, total = clock(), 0
    for number in range(1_000_000):
        total += number
    return max(1.0, (clock() - start) / SUM)


@contextmanager
def _limited(seconds: float, clock: Callable[[], float]) -> Iterator[None]:
    start = clock()
    yield
    taken = clock() - start
    if taken >= seconds:
        limit = seconds * _slowness(clock)
        assert taken < limit, f"took {taken:.1f} s; the limit on this machine is {limit:.1f} s"


def computed_within(seconds: float) -> AbstractContextManager[None]:
    """Limit the processor time that this process uses in the block."""
    return _limited(seconds, time.process_time)


def over_within(seconds: float) -> AbstractContextManager[None]:
    """Limit the wall time of the block, which waits for another process."""
    return _limited(seconds, time.monotonic)
