"""Proof that no step is faster than the hardware: its products at several times the peak."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from harness.timing.contestant import Contestant, Refused

# Products cannot be faster than this many times the fastest that was measured.
HARDWARE = 3.0
# Where a step takes less, the machine may have been busy while the peak was measured: so often it
# is measured again.
TRIES = 3


def check_hardware(
    contestant: Contestant,
    products: int,
    peak: float,
    seconds: float,
    again: Callable[[], float],
) -> None:
    """A step takes no less than its products need at several times the measured peak, which
    ``again`` measures once more.

    Raises:
        Refused: it takes less.
    """
    for tried in count():
        least = products / (HARDWARE * peak)
        contestant.record.hardware = {"least_seconds": least, "peak": peak}
        if seconds >= least:
            return
        if tried == TRIES:
            raise Refused(
                f"faster than the hardware: a step takes {seconds:.3g} s, and its matrix products "
                f"at {HARDWARE:g} times the measured peak take {least:.3g} s"
            )
        peak = max(peak, again())
