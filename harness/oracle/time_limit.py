"""Limits on the time and memory that the oracle may use for one cell.

The oracle runs in a thread of the parent process, and threads cannot be killed. The oracle
therefore checks the clock itself: before each primitive and before it draws a parameter. Work that
needs too much time or memory is rejected before it starts.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Literal

from harness.errors import HarnessError
from harness.files.system import available_memory

# Work that needs fewer bytes than this skips the memory check.
_SMALL = 64 << 20
# The share of the available memory that the oracle may use; the workers need the rest.
_SHARE = 0.8
# Bytes that each thread has reserved. A thread may not have allocated all of them yet.
_reserved_bytes: dict[int, int] = {}


class OracleFault(HarnessError):
    """The error that is raised if the oracle lacks time or memory. The backend is not at fault.
    ``verdict`` is the verdict of the cell."""

    def __init__(self, message: str, verdict: Literal["timeout", "out-of-memory"]) -> None:
        super().__init__(message, verdict)
        self.verdict = verdict

    def __str__(self) -> str:
        return str(self.args[0])


class TimeLimit:
    """The time limit of the oracle for one cell. ``limit`` and ``spent`` are in seconds. The event
    ``stopped`` is shared by all cells of one command, and is set when the command ends early."""

    def __init__(self, limit: float, stopped: threading.Event | None = None) -> None:
        self.limit, self.spent = limit, 0.0
        self.stopped = stopped or threading.Event()
        self._since: float | None = None
        self._end = limit

    @contextmanager
    def working(self) -> Iterator[None]:
        """Add the duration of the ``with`` block to ``spent``. If the block is inside another such
        block, add nothing, because the outer block counts its time."""
        if self._since is not None:
            yield
            return
        self._since = time.monotonic()
        self._end = self._since + self.limit - self.spent
        try:
            yield
        finally:
            self.spent += time.monotonic() - self._since
            self._since = None

    def check_time(self) -> None:
        """Raise :class:`OracleFault` if the time limit has passed or the command was stopped."""
        if self._since is None:
            return
        if self.stopped.is_set():
            raise OracleFault("the run was stopped", "timeout")
        if time.monotonic() > self._end:
            raise time_fault(f"did not finish in {self.limit:g} s")

    def check(self, needed_seconds: float) -> None:
        """Raise :class:`OracleFault` if less than ``needed_seconds`` are left."""
        seconds_left = self.left()
        if seconds_left <= 0.0:
            raise time_fault(f"did not finish in {self.limit:g} s")
        if needed_seconds > seconds_left:
            left_text = (
                f", of which {seconds_left:.1f} s are left"
                if self.limit - seconds_left >= 0.1
                else ""
            )
            needed_text = (
                f"{needed_seconds:,.1f}" if needed_seconds >= 1 else f"{needed_seconds:.1g}"
            )
            raise time_fault(
                f"needs {needed_text} s or more, but may use only {self.limit:g} s{left_text}"
            )

    def left(self) -> float:
        """Return how many seconds the oracle may still use."""
        since = 0.0 if self._since is None else time.monotonic() - self._since
        return self.limit - self.spent - since


_current: ContextVar[TimeLimit | None] = ContextVar("time_limit", default=None)


@contextmanager
def with_time_limit(time_limit: TimeLimit) -> Iterator[None]:
    """Apply the time limit ``time_limit`` to the oracle in this thread during the ``with``
    block."""
    before = _current.set(time_limit)
    try:
        yield
    finally:
        _current.reset(before)


@contextmanager
def within_limits(need_bytes: int = 0, min_seconds: float = 0.0) -> Iterator[None]:
    """Check that the ``with`` block has enough time and memory. When it ends, add its duration to
    the time that the oracle has used.

    The block needs ``need_bytes`` bytes and at least ``min_seconds`` seconds. Outside
    :func:`with_time_limit` there is no time limit.

    Raises:
        OracleFault: there is not enough time or memory.
    """
    time_limit = _current.get() or TimeLimit(math.inf)
    try:
        with _reserved(need_bytes):
            time_limit.check(min_seconds)
            with time_limit.working():
                yield
    except MemoryError as error:
        raise OracleFault(f"the oracle ran out of memory: {error}", "out-of-memory") from error


@contextmanager
def _reserved(need_bytes: int) -> Iterator[None]:
    """Reserve ``need_bytes`` bytes of memory during the ``with`` block. Raise :class:`OracleFault`
    if they are not available. Memory that other threads have reserved does not count as available.
    """
    thread_id = threading.get_ident()
    before = _reserved_bytes.get(thread_id, 0)
    if need_bytes > max(_SMALL, before):
        reserved_by_others = sum(
            reserved for thread, reserved in tuple(_reserved_bytes.items()) if thread != thread_id
        )
        available_bytes = max(0.0, _SHARE * available_memory() - reserved_by_others)
        if need_bytes > available_bytes:
            raise OracleFault(
                f"the oracle needs about {need_bytes / 2**30:,.1f} GiB of memory, but may use "
                f"only {available_bytes / 2**30:,.1f} GiB, which is not a fault of the backend; "
                "choose smaller sizes (--size)",
                "out-of-memory",
            )
    _reserved_bytes[thread_id] = max(need_bytes, before)
    try:
        yield
    finally:
        if before:
            _reserved_bytes[thread_id] = before
        else:
            _reserved_bytes.pop(thread_id, None)


def spent() -> float:
    """Return the seconds that the oracle has used for the cell that this thread computes."""
    time_limit = _current.get()
    return 0.0 if time_limit is None else time_limit.spent


def this_run() -> object:
    """Return an object that identifies the running command: all cells of one command get the same
    object."""
    time_limit = _current.get()
    return object() if time_limit is None else time_limit.stopped


def check_time() -> None:
    """Raise :class:`OracleFault` if the oracle's time limit in this thread has passed."""
    time_limit = _current.get()
    if time_limit is not None:
        time_limit.check_time()


def time_checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that each call first checks the oracle's time limit."""

    current = _current.get

    @wraps(function)
    def run(*arguments: Any, **keywords: Any) -> Any:  # a small primitive takes no longer than this
        time_limit = current()
        if time_limit is not None:
            time_limit.check_time()
        return function(*arguments, **keywords)

    return run


def time_fault(how: str) -> OracleFault:
    """Return the error that the oracle is too slow. Its message is "the oracle " plus ``how``, e.g.
    ``did not finish in 300 s``."""
    return OracleFault(
        f"the oracle {how}, which is not a fault of the backend; "
        "choose smaller sizes (--size) or more time (--timeout)",
        "timeout",
    )
