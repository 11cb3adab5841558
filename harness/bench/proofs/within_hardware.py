"""Proof that no step is faster than the hardware: its products at several times the peak."""

from __future__ import annotations

from harness.bench.contestant import Contestant, Refused

# Products cannot be faster than this many times the fastest that was measured.
HARDWARE = 3.0


def check_hardware(contestant: Contestant, products: int, peak: float, seconds: float) -> None:
    """A step takes no less than its products need at several times the measured peak.

    Raises:
        Refused: it takes less.
    """
    least = products / (HARDWARE * peak)
    contestant.record.hardware = {"least_seconds": least, "peak": peak}
    if seconds < least:
        raise Refused(
            f"faster than the hardware: a step takes {seconds:.3g} s, and its matrix products at "
            f"{HARDWARE:g} times the measured peak take {least:.3g} s"
        )
