"""Proof that the worker's clock, by which all is timed, goes as fast as our own."""

from __future__ import annotations

from collections.abc import Sequence

from harness.timing.contestant import Contestant, Refused, TimedRow

# Both clocks are the system's own, so that only messages lie between them: so many seconds a row,
# and so many times as long as the worker waits for a processor whenever it has to. A worker cannot
# make that longer without work that takes the processors from its own steps.
MESSAGE, WAITS = 0.002, 3.0
# Of a baseline, whose rounds are not kept, the longest rows count.
LONGEST = 5


def check_clock(contestant: Contestant) -> None:
    """Compare the clock of the worker with our own, which runs around every call, in the rounds
    that count: it may go well elsewhere.

    Raises:
        Refused: it has lost more time in them than messages take.
    """
    rows = [played.clock for played in contestant.played]
    if contestant.entry.baseline:
        rows = sorted(contestant.clocks, key=lambda row: row.passed)[-LONGEST:]
    told, passed, allowed = compare_clocks(rows)
    contestant.record.clock = {"told": told, "passed": passed, "allowed": allowed}
    if passed - told > allowed:
        raise Refused(
            f"its clock goes wrong: over the better half of its rounds it tells of {told:.4g} s "
            f"where {passed:.4g} s have passed, of which messages explain {allowed:.2g} s"
        )


def compare_clocks(rows: Sequence[TimedRow]) -> tuple[float, float, float]:
    """Return the seconds that a worker told of, those that passed, and by how much they may
    differ: sums over the half of the rows, and one more, in which least was lost.

    A speed is the median of its rounds, and whoever wants to change it must lie in half of them;
    but a machine may hold any of the others up.
    """
    kept = sorted(rows, key=lambda row: row.lost)[: len(rows) // 2 + 1]
    allowed = sum(MESSAGE + WAITS * row.wait for row in kept)
    return sum(row.told for row in kept), sum(row.passed for row in kept), allowed
