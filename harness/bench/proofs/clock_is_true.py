"""Proof that the worker's clock, by which all is timed, goes as fast as our own."""

from __future__ import annotations

from harness.bench.contestant import Contestant, Refused

# The worker's clock may lose this share of our own, and what a message takes on a busy machine.
LOST, MESSAGE, LONGEST = 0.2, 0.005, 5


def check_clock(contestant: Contestant) -> None:
    """The clock of the worker goes as fast as our own, which runs around every call.

    Raises:
        Refused: in each of the longest runs it has lost time.
    """
    longest = sorted(contestant.clocks, key=lambda clock: clock[1])[-LONGEST:]
    told, passed = min(longest, key=_lost)
    contestant.record.clock = {"told": told, "passed": passed}
    if _lost((told, passed)) > LOST:
        raise Refused(
            f"its clock goes wrong: it tells of {told:.3g} s where {passed:.3g} s have passed, "
            "and in no long run it was nearer"
        )


def _lost(clock: tuple[float, float]) -> float:
    told, passed = clock
    return (passed - MESSAGE) / max(told, 1e-9) - 1
