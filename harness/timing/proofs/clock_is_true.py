"""Proof that the worker's clock, by which all is timed, goes as fast as our own."""

from __future__ import annotations

from harness.timing.contestant import Contestant, Refused
from harness.timing.play import sample

# The worker's clock may lose this share of our own, and what a message takes on a busy machine.
LOST, MESSAGE = 0.2, 0.005
# Where it loses more in half of the rounds, so many more are tried, which take so many seconds.
SAMPLES, TRIED = 6, 0.25
# Of a baseline, whose rounds are not kept, the longest rows count.
LONGEST = 5


def check_clock(contestant: Contestant) -> None:
    """The clock of the worker goes as fast as our own, which runs around every call: in the rounds
    that count, as it may go well elsewhere.

    Raises:
        Refused: in half of them it has lost time.
    """
    if contestant.entry.baseline:
        longest = sorted(contestant.clocks, key=lambda clock: clock[1])[-LONGEST:]
        middle = min(longest, key=_lost)
    else:
        middle = _middle(contestant)
        most = len(contestant.played) + SAMPLES
        while _lost(middle) > LOST and len(contestant.played) < most:
            sample(contestant, TRIED)
            middle = _middle(contestant)
    told, passed = middle
    contestant.record.clock = {"told": told, "passed": passed}
    if _lost(middle) > LOST:
        raise Refused(
            f"its clock goes wrong: it tells of {told:.3g} s where {passed:.3g} s have passed, "
            "and in half of the rounds it was no nearer"
        )


def _middle(contestant: Contestant) -> tuple[float, float]:
    clocks = sorted((p.clock for p in contestant.played), key=_lost)
    return clocks[(len(clocks) - 1) // 2]


def _lost(clock: tuple[float, float]) -> float:
    told, passed = clock
    return (passed - MESSAGE) / max(told, 1e-9) - 1
