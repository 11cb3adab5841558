"""A round as it is timed: steps in a row, and then some that are waited for, one by one.

All of it can be made again, and what it has led to is kept as it was read when a clock stopped:
a backend that tells another thing later has told it to nobody.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from harness.timing.contestant import Contestant, Handed, Pace, Played
from harness.timing.workload import ROTATING, SECRET, Batch, Left

# Seconds: of steps before a round, of a round, and of the steps that are waited for one by one.
WARMING, ROUND, WAITED = 0.06, 0.25, 0.06
# Reading results takes no longer than so many times the reading of what is like them, and so many
# seconds.
COPIES, SLACK = 3.0, 2e-5
# A call costs no more than so many seconds beyond its steps, to be made and to be waited for.
CALL = 1e-3


def one_round(contestant: Contestant, batches: Sequence[Batch], drawn: bool = False) -> None:
    """One number of throughput and some of latency, after untimed steps of both kinds.

    A round begins anew, on batches that no round had, so that it can be made again; what it has
    left is kept where it was ``drawn``. A baseline goes on with the batches it has.
    """
    steps, count = contestant.steps, contestant.steps_in(ROUND)
    baseline = contestant.entry.baseline
    if not baseline:
        steps.restart()
    worked, started = contestant.processor(), time.perf_counter()
    if not baseline:
        steps.feed(batches)
        if contestant.many == 1:
            count += SECRET.randrange(2 + count // ROTATING)
    warm = contestant.steps_in(WARMING, least=1)
    calls = [(contestant.take(warm), warm), (contestant.take(count), count)]
    contestant.row(*calls[0])
    begun = Handed(time.perf_counter() - started, contestant.processor() - worked)
    seconds, processor = _in_a_row(contestant, *calls[1])
    contestant.result.seconds.append(seconds)
    contestant.result.steps = count
    waited = max(3, min(ROTATING * 8, contestant.steps_in(WAITED)))
    if baseline:
        contestant.record.latencies += contestant.latencies(waited)
        return
    contestant.handed.append(begun.beyond(warm, seconds, processor))
    contestant.played.append(_played(contestant, batches, calls, drawn))
    _alone_after(contestant, seconds, processor, waited)


def sample(contestant: Contestant, seconds: float) -> None:
    """A short round on the batches of the last, for its pace: steps in a row that take so long, and
    as many alone."""
    count = contestant.steps_in(seconds)
    contestant.steps.restart()
    first = contestant.take(count)
    row, processor = _in_a_row(contestant, first, count)
    reads = {first + count - 1: contestant.steps.last(0)}
    batches, clock = contestant.played[-1].batches, contestant.clocks[-1]
    contestant.played.append(Played(batches, [(first, count)], clock, reads, drawn=True))
    _alone_after(contestant, row, processor, count)


def _in_a_row(contestant: Contestant, first: int, count: int) -> tuple[float, float]:
    """Seconds of a step in a row, and those of processors."""
    before = contestant.processor()
    seconds = contestant.row(first, count)
    return seconds / count, (contestant.processor() - before) / count


def _played(
    contestant: Contestant,
    batches: Sequence[Batch],
    calls: Sequence[tuple[int, int]],
    drawn: bool,
) -> Played:
    """What a row has left, as far as it is looked at: which is decided here, after it."""
    steps, (first, count) = contestant.steps, calls[-1]
    back = SECRET.randrange(contestant.many)
    reads = {first + count - 1 - back: steps.last(back)}
    parameters: Left = {}
    reading: list[float] = []
    while drawn and contestant.carries and len(reading) < 2:
        started = time.perf_counter()
        parameters = dict(steps.parameters())
        reading.append(time.perf_counter() - started)
    clock = contestant.clocks[-1]
    return Played(batches, calls, clock, reads, drawn, parameters, len(calls), tuple(reading))


def _alone_after(contestant: Contestant, row: float, row_processor: float, count: int) -> None:
    """Make ``count`` steps, and up to twice as many, that are waited for, and add them to what was
    played last. How many they are is drawn: nobody knows which is the last, whose results count."""
    steps, many, played = contestant.steps, contestant.many, contestant.played[-1]
    count += SECRET.randrange(count)
    first, before = contestant.take(count), contestant.processor()
    stages, calls = steps.stages(first, count), [*played.calls, (first, count)]
    processor = (contestant.processor() - before) / count
    contestant.record.latencies += [begun + done for begun, done, _ in stages]
    single = 0.0
    if many > 1:  # of calls of several steps, as there are in a row
        single = min(median(begun + done for begun, done, _ in stages), row + CALL)
        count = -(-count // many)
        first, before = contestant.take(count * many), contestant.processor()
        stages = steps.stages(first, count, many)
        processor = (contestant.processor() - before) / (count * many)
        calls.append((first, count * many))
    back = SECRET.randrange(many)
    reads = {**played.reads, first + count * many - 1 - back: steps.last(back)}
    contestant.played[-1] = replace(played, calls=calls, reads=reads)
    most = COPIES * steps.copying() + SLACK  # work that is done anew at each reading is no reading
    stages = [[begun, done, min(again, most)] for begun, done, again in stages]
    begun, done, again = (median(times) / many for times in zip(*stages, strict=True))
    # Of each: one that is made when it has begun, and the next when it is read, are each as long as
    # a step, and the medians of their parts are half of one. A call of several without one of a
    # single step has lost what calls cost, to be made and to be waited for.
    whole = median(max(start, end - read) for start, end, read in stages)
    longer = (whole - single) / max(many - 1, 1)
    contestant.paces.append(Pace(row, begun, done, again, longer, row_processor, processor))
