"""Proof that a round was right: one of its steps, drawn once it is over, is the oracle's.

The first steps are known to everybody: a backend may be right on the first batches that it is
given, or in its first steps, and do nothing later, as long as it always does the same nothing.
The batches of a round are drawn in the parent, and which of its steps is asked for, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.arrays import Arrays
from harness.oracle.tolerance import Deviation, worst
from harness.oracle.yardstick import Expected
from harness.timing.contestant import Contestant, Played, Refused
from harness.timing.workload import ROTATING, SECRET


def check_step(contestant: Contestant) -> None:
    """A step of a round that was timed makes of what the steps before have left what the oracle
    makes of it; or where nothing is left, it has the oracle's results.

    Raises:
        Refused: it does not.
    """
    played = [p for p in contestant.played if p.drawn or not contestant.carries]
    if not played:
        return
    one = SECRET.choice(played)
    again = _replayed if contestant.carries else _read
    number, index, left, found = again(contestant, one)
    expected = contestant.case.following(number, one.batches[index % ROTATING], left)
    deviations = _compared(contestant, expected, found)
    furthest = worst(deviations)
    contestant.record.later_step = {
        "step": number,
        "compared": len(deviations),
        "worst": furthest.name,
        "error": furthest.error,
        "ratio": furthest.ratio,
    }
    if not furthest.agrees:
        raise Refused(f"differs from the oracle in the middle of a round: {furthest}")


def _compared(contestant: Contestant, expected: Expected, found: Arrays) -> list[Deviation]:
    """Held against the noise of the first steps; and where that is too little, against this step's
    own, which takes longer to measure."""
    case = contestant.case
    known: dict[str, float] = {}
    for name, error in case.expected.noise(case.dtype).items():
        of = name.partition(": ")[2]
        known[of] = max(error, known.get(of, 0.0))
    noise = {name: known.get(name.partition(": ")[2], 0.0) for name in expected.values}
    quick = case.compare(found, Expected.within(expected.values, noise, case.dtype))
    return quick if all(d.agrees for d in quick) else case.compare(found, expected)


# The number of a step, its index, what those before it have left, and what it has made.
Found = tuple[int, int, Mapping[str, Any], Arrays]


def _read(contestant: Contestant, played: Played) -> Found:
    """A step whose results were read when a clock stopped."""
    material, (index, results) = contestant.case.material, SECRET.choice([*played.reads.items()])
    left: dict[str, Any] = {
        "parameters": material.parameters,
        "statistics": material.statistics,
        "others": {},
    }
    return index + 1, index, left, contestant.case.found([results], {}, index + 1)


def _replayed(contestant: Contestant, played: Played) -> Found:
    """A step of the round made again, what those before it have left, and what it has made."""
    steps, train = contestant.steps, contestant.case.group.mode == "train"
    before = SECRET.randrange(played.steps)
    number = before + 1
    steps.feed(played.batches)
    steps.restart()
    for first, count in played.calls:
        if before < count:
            break
        steps.latency(first, count)
        before -= count
    steps.latency(first, before)
    left = steps.parameters()
    results = steps.values(first + before, 1)
    after: Mapping[str, Any] = steps.parameters() if train else {}
    found = contestant.case.found(results, after, number, left["parameters"])
    return number, first + before, left, found
