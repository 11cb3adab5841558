"""Proofs that only a clock can give: of rounds that were timed, and of what took them so long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median, quantiles
from typing import Any

from harness.bench.contestant import Contestant, Pace, Refused
from harness.bench.workload import ROTATING

# The worker's clock may lose this share of our own, and what a message takes on a busy machine.
LOST, MESSAGE, LONGEST = 0.2, 0.005, 5
# A step in a row takes no less than this share of the longer part of a step alone.
LEAST = 0.75
# And of processors' time no less than this, as to wait for a step takes some too.
LEAST_PROCESSOR = 0.6
# Where it is less than this, or the wall's time is too little, more samples are taken: so many.
CLEAR, SAMPLES = 0.75, 6
# Seconds of steps in a row of such a sample.
TRIED = 0.1
TRIES = 3
# Steps on batches never seen may take this many times as long as on batches seen before.
UNSEEN = 1.5


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


def pace(contestant: Contestant, row: float, row_processor: float, count: int) -> Pace:
    """The seconds of a step in a row beside those of ``count`` steps alone, which are made now."""
    before = contestant.processor()
    stages = contestant.steps.stages(contestant.take(count), count)
    alone_processor = (contestant.processor() - before) / count
    contestant.record.latencies += [begun + done for begun, done, _ in stages]
    begun, done, again = (median(times) for times in zip(*stages, strict=True))
    # Of each step: one that is made when it has begun, and the next when it is read, are each as
    # long as a step, and the medians of their parts are half of one.
    longer = median(max(start, end - again) for start, end, _ in stages)
    return Pace(row, begun, done, again, longer, row_processor, alone_processor)


def check_pace(contestant: Contestant) -> None:
    """A step in a row, which nobody reads, takes about as long as one alone, which is read.

    While one is computed the next may be begun, and there is no reading; so that of the time
    alone the longer part is left, to begin a step or to wait for it. Where several steps are one
    call there is no such bound: that saves what a call costs, and each of their results is there
    to be looked at (:mod:`.replay`). On a busy machine wall time tells little; there the time of
    processors does, which overlapping does not save.

    Raises:
        Refused: of the wall's time in every round, and in some more samples, it takes much less; or
            of the processors' in half of them.
    """
    if contestant.many > 1:
        return
    paces = list(contestant.paces)
    while _less(contestant, paces, CLEAR) and len(paces) < len(contestant.paces) + SAMPLES:
        count, before = contestant.steps_in(TRIED), contestant.processor()
        seconds = contestant.throughput(count) / count
        processor = (contestant.processor() - before) / count
        paces.append(pace(contestant, seconds, processor, contestant.steps_in(TRIED)))
    middle = sorted(paces, key=lambda p: p.processor_share)[len(paces) // 2]
    shares = {"share": middle.share, "processor_share": middle.processor_share}
    contestant.record.pace = asdict(middle) | shares
    if _less(contestant, paces, LEAST_PROCESSOR):
        raise Refused(
            f"does less where nobody reads: in a row a step takes {middle.row:.3g} s "
            f"({middle.row_processor:.3g} s of processors), and alone {middle.begun:.3g} s to "
            f"begin and {middle.done:.3g} s more until its results are there, of which reading is "
            f"{middle.again:.3g} s ({middle.alone_processor:.3g} s of processors)"
        )


def _less(contestant: Contestant, paces: Sequence[Pace], least: float) -> bool:
    """Whether a step in a row has taken too little: of the wall's time in every round, or of the
    processors' in half of them, where the work is a processor's.

    Of the wall's the best counts, as on a busy machine it tells little; the processors' is
    scattered about what it is, so that of many samples one is near the bound by chance.
    """
    if max(p.share for p in paces) < LEAST:
        return True
    return contestant.device == "cpu" and median(p.processor_share for p in paces) < least


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
