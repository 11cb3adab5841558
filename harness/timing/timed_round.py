"""Timing of a round, which has two parts: steps without a wait between them, and single steps that
the worker waits for.

A round can be repeated later to verify its results. The results are read as soon as a clock stops,
so a backend cannot replace them afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from harness.timing.contestant import Contestant, FeedTime, Pace, TimedRound
from harness.timing.workload import ROTATING, SECRET, Batch, StepValues

# Seconds of the untimed steps before a round, of the timed row, and of the single steps.
WARMING, ROUND, WAITED = 0.06, 0.25, 0.06
# Reading the results of a step may take COPIES times as long as reading similar arrays, plus SLACK
# seconds. Any longer time counts as work of the step.
COPIES, SLACK = 3.0, 2e-5
# The most seconds that a call may cost in addition to its steps.
CALL = 1e-3


def time_round(contestant: Contestant, batches: Sequence[Batch], drawn: bool = False) -> None:
    """Time one round: steps without a wait between them for the throughput, then single steps for
    the latency.

    Some untimed steps run first. The round starts from the initial values and uses new batches, so
    that it can be repeated. With ``drawn``, the harness will repeat this round, so it also reads
    and stores the values after the timed steps (e.g. parameters). A baseline (code outside the
    harness) keeps its batches and continues from its current values.
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
    calls = [(contestant.reserve_steps(warm), warm), (contestant.reserve_steps(count), count)]
    contestant.time_row(*calls[0])
    begun = FeedTime(time.perf_counter() - started, contestant.processor() - worked)
    seconds, processor = _time_row(contestant, *calls[1])
    contestant.result.seconds.append(seconds)
    contestant.result.steps = count
    waited = max(3, min(ROTATING * 8, contestant.steps_in(WAITED)))
    if baseline:
        contestant.record.latencies += contestant.latencies(waited)
        return
    contestant.feed_times.append(begun.beyond(warm, seconds, processor))
    contestant.timed_rounds.append(_read_round(contestant, batches, calls, drawn))
    _time_single_steps(contestant, seconds, processor, waited)


def time_sample(contestant: Contestant, seconds: float) -> None:
    """Time an additional short round for the pace proof (:class:`Pace`): steps without a wait for
    about ``seconds`` seconds, then single steps."""
    count = contestant.steps_in(seconds)
    contestant.steps.restart()
    first = contestant.reserve_steps(count)
    row, processor = _time_row(contestant, first, count)
    reads = {first + count - 1: contestant.steps.last(0)}
    batches, clock = contestant.timed_rounds[-1].batches, contestant.clocks[-1]
    contestant.timed_rounds.append(TimedRound(batches, [(first, count)], clock, reads, drawn=True))
    _time_single_steps(contestant, row, processor, count)


def _time_row(contestant: Contestant, first: int, count: int) -> tuple[float, float]:
    """Run ``count`` steps without a wait between them, starting at index ``first``. Return the wall
    seconds per step and the processor seconds per step."""
    before = contestant.processor()
    seconds = contestant.time_row(first, count)
    return seconds / count, (contestant.processor() - before) / count


def _read_round(
    contestant: Contestant,
    batches: Sequence[Batch],
    calls: Sequence[tuple[int, int]],
    drawn: bool,
) -> TimedRound:
    """Read the results of one of the steps that have just run, and return the round with these
    results.

    The step is chosen at random after the steps have run, so a backend cannot know it. With
    ``drawn``, the values after the last step (e.g. parameters) are read too.
    """
    steps, (first, count) = contestant.steps, calls[-1]
    back = SECRET.randrange(contestant.many)
    reads = {first + count - 1 - back: steps.last(back)}
    parameters: StepValues = {}
    reading: list[float] = []
    while drawn and contestant.carries and len(reading) < 2:
        started = time.perf_counter()
        parameters = dict(steps.parameters())
        reading.append(time.perf_counter() - started)
    clock = contestant.clocks[-1]
    return TimedRound(batches, calls, clock, reads, drawn, parameters, len(calls), tuple(reading))


def _time_single_steps(
    contestant: Contestant, row: float, row_processor: float, count: int
) -> None:
    """Time single steps, and add their times to the last round. ``row`` and ``row_processor`` are
    the wall seconds and the processor seconds of a step without a wait.

    The number of single steps is random, from ``count`` to twice ``count``. So a backend does not
    know which step is the last step, whose results are read.
    """
    steps, many, played = contestant.steps, contestant.many, contestant.timed_rounds[-1]
    count += SECRET.randrange(count)
    first, before = contestant.reserve_steps(count), contestant.processor()
    stages, calls = steps.stages(first, count), [*played.calls, (first, count)]
    processor = (contestant.processor() - before) / count
    contestant.record.latencies += [begun + done for begun, done, _ in stages]
    single = 0.0
    if many > 1:  # calls in a row have several steps, so time such calls too
        single = min(median(begun + done for begun, done, _ in stages), row + CALL)
        count = -(-count // many)
        first, before = contestant.reserve_steps(count * many), contestant.processor()
        stages = steps.stages(first, count, many)
        processor = (contestant.processor() - before) / (count * many)
        calls.append((first, count * many))
    back = SECRET.randrange(many)
    reads = {**played.reads, first + count * many - 1 - back: steps.last(back)}
    contestant.timed_rounds[-1] = replace(played, calls=calls, reads=reads)
    most = COPIES * steps.copying() + SLACK  # a longer time is work, not reading
    stages = [[begun, done, min(again, most)] for begun, done, again in stages]
    begun, done, again = (median(times) / many for times in zip(*stages, strict=True))
    # Take the longer part of each step, then the median. A backend may do the work of one step when
    # the step starts, and the work of the next step when that step ends. The median of each part
    # would then be half a step. The time of a single-step call is subtracted, which removes the
    # cost of a call.
    whole = median(max(start, end - read) for start, end, read in stages)
    longer = (whole - single) / max(many - 1, 1)
    contestant.paces.append(Pace(row, begun, done, again, longer, row_processor, processor))
