"""Limits of the oracle's time and memory for one cell.

The oracle runs in the parent process, in a thread that cannot be killed. It therefore checks the
clock itself, before each primitive and between the numbers that it draws. Work that does not fit
into the time or memory is refused beforehand, so that a single step overruns little.
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
from harness.runtime.memory import available

# Requests below this many bytes skip the memory check.
_SMALL = 64 << 20
# The share of the available memory that the oracle may request; workers need the rest.
_SHARE = 0.8
# Bytes that each thread has requested and may not have allocated yet.
_asked: dict[int, int] = {}


class OracleFault(HarnessError):
    """The oracle lacks time or memory; no backend is to blame. ``verdict`` is the cell's."""

    def __init__(self, message: str, verdict: Literal["timeout", "out-of-memory"]) -> None:
        super().__init__(message, verdict)
        self.verdict = verdict

    def __str__(self) -> str:
        return str(self.args[0])


class Patience:
    """The oracle's share of one cell's time: ``limit`` and ``spent`` in seconds. ``stopped`` is set
    when nobody waits for the result any more. All cells of a run share it."""

    def __init__(self, limit: float, stopped: threading.Event | None = None) -> None:
        self.limit, self.spent = limit, 0.0
        self.stopped = stopped or threading.Event()
        self._since: float | None = None
        self._end = limit

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time of the block; a nested block is counted already."""
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

    def look(self) -> None:
        """Raise :class:`OracleFault` if the time is over or the run was ended."""
        if self._since is None:
            return
        if self.stopped.is_set():
            raise OracleFault("the run was ended", "timeout")
        if time.monotonic() > self._end:
            raise too_slow(f"was not done in {self.limit:g} s")

    def check(self, least: float) -> None:
        """Raise :class:`OracleFault` if ``least`` seconds of work do not fit into the time left."""
        left = self.left()
        if left <= 0.0:
            raise too_slow(f"was not done in {self.limit:g} s")
        if least > left:
            used = f", of which {left:.1f} s are left" if self.limit - left >= 0.1 else ""
            needed = f"{least:,.1f}" if least >= 1 else f"{least:.1g}"
            raise too_slow(f"needs {needed} s or more, and has {self.limit:g} s{used}")

    def left(self) -> float:
        """Return the seconds that the oracle may still work."""
        since = 0.0 if self._since is None else time.monotonic() - self._since
        return self.limit - self.spent - since


_current: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextmanager
def with_patience(patience: Patience) -> Iterator[None]:
    """Limit the oracle's work in this thread during the block."""
    before = _current.set(patience)
    try:
        yield
    finally:
        _current.reset(before)


@contextmanager
def at_work(need: int = 0, least: float = 0.0) -> Iterator[None]:
    """Count the block as the oracle's work, which needs ``need`` bytes and at least ``least``
    seconds.

    Raises:
        OracleFault: there is not enough time or memory. Without :func:`with_patience` only the
            memory counts.
    """
    patience = _current.get() or Patience(math.inf)
    try:
        with _asking(need):
            patience.check(least)
            with patience.working():
                yield
    except MemoryError as error:
        raise OracleFault(f"the oracle ran out of memory: {error}", "out-of-memory") from error


@contextmanager
def _asking(need: int) -> Iterator[None]:
    """Reserve memory during the block, so that other threads count it."""
    own = threading.get_ident()
    before = _asked.get(own, 0)
    if need > max(_SMALL, before):
        others = sum(asked for thread, asked in tuple(_asked.items()) if thread != own)
        left = max(0.0, _SHARE * available() - others)
        if need > left:
            raise OracleFault(
                f"the oracle needs some {need / 2**30:,.1f} GiB of memory, and may take "
                f"{left / 2**30:,.1f} GiB, which is not a fault of the backend; "
                "choose smaller sizes (--size)",
                "out-of-memory",
            )
    _asked[own] = max(need, before)
    try:
        yield
    finally:
        if before:
            _asked[own] = before
        else:
            _asked.pop(own, None)


def spent() -> float:
    """Return the seconds that the oracle has worked for this thread's cell."""
    patience = _current.get()
    return 0.0 if patience is None else patience.spent


def this_run() -> object:
    """Return an object that identifies the run of this thread's work."""
    patience = _current.get()
    return object() if patience is None else patience.stopped


def look() -> None:
    """Raise :class:`OracleFault` if the oracle's time in this thread is over."""
    patience = _current.get()
    if patience is not None:
        patience.look()


def patient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that checks the clock before it begins."""

    current = _current.get

    @wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:  # a small primitive takes no longer than this
        patience = current()
        if patience is not None:
            patience.look()
        return function(*arguments, **named)

    return run


def too_slow(how: str) -> OracleFault:
    """Return the fault of a slow oracle; ``how`` continues the words "the oracle"."""
    return OracleFault(
        f"the oracle {how}, which is not a fault of the backend; "
        "choose smaller sizes (--size) or more time (--timeout)",
        "timeout",
    )
