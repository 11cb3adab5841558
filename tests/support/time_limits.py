"""Limits of time that mean the same on a slow machine and beside other work.

They are against what never ends, or grows faster than what it reads. Each is in seconds of a
machine that sums a million numbers in :data:`SUM` of them; what is above its limit is held against
how fast this machine is at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

SUM = 0.05


def _slowness(clock: Callable[[], float]) -> float:
    """How many times as long a sum takes as on that machine; never less than once."""
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
        assert taken < limit, f"took {taken:.1f} s, and not the {limit:.1f} s that are allowed here"


def computed_within(seconds: float) -> AbstractContextManager[None]:
    """Hold the block to this much processor time of this process."""
    return _limited(seconds, time.process_time)


def over_within(seconds: float) -> AbstractContextManager[None]:
    """Hold the block to this long by the clock, where it waits for another process."""
    return _limited(seconds, time.monotonic)
