"""Proof that no results are looked up: batches never seen take no longer than those seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from harness.timing.contestant import Contestant, Refused
from harness.timing.workload import ROTATING

TRIES = 3
# Steps on batches never seen may take this many times as long as on batches seen before.
UNSEEN = 1.5


def check_unseen(contestant: Contestant) -> None:
    """Batches that were never seen take no longer than those of the last round.

    Those were seen as often as the figure rests on; those that are new are more than any cache
    holds, as each is seen once. Both in a row and one by one.

    Raises:
        Refused: they take longer.
    """
    for _ in range(TRIES):
        ways = {"in_a_row": _in_a_row(contestant), "one_by_one": _one_by_one(contestant)}
        contestant.record.unseen = {name: _compared(*times) for name, times in ways.items()}
        slower = [times for times in ways.values() if _is_slower(*times)]
        if not slower:
            return
    ratio = max(found["ratio"] for found in contestant.record.unseen.values())
    raise Refused(
        f"answers from a cache: a step on a batch that it has not seen takes {ratio:.3g} times "
        "as long as on one that it has"
    )


Times = tuple[list[float], list[float]]


def _in_a_row(contestant: Contestant) -> Times:
    """Seconds of a few steps in a row, on batches never seen and on those of the last round."""
    unseen, seen = [], []
    steps, count = contestant.steps, ROTATING
    for _ in range(TRIES):
        # The first steps on memory that is new cost more, whoever makes them.
        steps.feed(contestant.case.unseen(), beside=True)
        contestant.throughput(count)
        steps.feed(contestant.case.unseen(), beside=True)
        _warm(contestant)
        steps.turn(1)
        unseen.append(contestant.throughput(count))
        _warm(contestant)
        seen.append(contestant.throughput(count))
    return unseen, seen


def _one_by_one(contestant: Contestant) -> Times:
    """Seconds of single steps; the first, which finds nothing warm, is left out of both."""
    unseen: list[float] = []
    seen: list[float] = []
    for _ in range(TRIES):
        contestant.steps.feed(contestant.case.unseen(), beside=True)
        _warm(contestant)
        contestant.steps.turn(1)
        unseen += contestant.latencies(ROTATING)[1:]
        _warm(contestant)
        seen += contestant.latencies(ROTATING)[1:]
    return unseen, seen


def _warm(contestant: Contestant) -> None:
    """Go back to the batches of the last round, some of which a small cache has let go of, and
    leave nothing cold, for whichever is timed next."""
    contestant.steps.turn(0)
    contestant.throughput(2 * ROTATING)


def _compared(unseen: Sequence[float], seen: Sequence[float]) -> Mapping[str, Any]:
    return {
        "ratio": median(unseen) / median(seen),
        "unseen": median(unseen),
        "seen": median(seen),
    }


def _is_slower(unseen: Sequence[float], seen: Sequence[float]) -> bool:
    apart = quantiles(unseen, method="inclusive")[0] > quantiles(seen, method="inclusive")[2]
    return median(unseen) > UNSEEN * median(seen) and apart
