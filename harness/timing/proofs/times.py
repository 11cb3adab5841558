"""Proofs by time: it waits for its work, leaves none out, and does none before the clock starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from math import inf
from statistics import median, quantiles

from harness.timing.contestant import Contestant, Handed, Pace, Refused, TimedRow
from harness.timing.play import sample
from harness.timing.workload import ROTATING

# Proof that no step is faster than the hardware: its products at several times the peak.

# Products cannot be faster than this many times the fastest that was measured.
HARDWARE = 3.0
# Where a step takes less, the machine may have been busy while the peak was measured: so often it
# is measured again.
PEAK_TRIES = 3


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
        if tried == PEAK_TRIES:
            raise Refused(
                f"faster than the hardware: a step takes {seconds:.3g} s, and its matrix products "
                f"at {HARDWARE:g} times the measured peak take {least:.3g} s"
            )
        peak = max(peak, again())


# Proof that no results are looked up: batches never seen take no longer than those seen.

UNSEEN_TRIES = 3
# Steps on batches never seen may take this many times as long as on batches seen before.
UNSEEN = 1.5


def check_unseen(contestant: Contestant) -> None:
    """Batches that were never seen take no longer than those of the last round.

    Those were seen as often as the figure rests on; those that are new are more than any cache
    holds, as each is seen once. Both in a row and one by one.

    Raises:
        Refused: they take longer.
    """
    for _ in range(UNSEEN_TRIES):
        ways = {
            "in_a_row": _unseen_in_a_row(contestant),
            "one_by_one": _unseen_one_by_one(contestant),
        }
        contestant.record.unseen = {
            name: {
                "ratio": median(unseen) / median(seen),
                "unseen": median(unseen),
                "seen": median(seen),
            }
            for name, (unseen, seen) in ways.items()
        }
        slower = [times for times in ways.values() if _is_slower(*times)]
        if not slower:
            return
    ratio = max(found["ratio"] for found in contestant.record.unseen.values())
    raise Refused(
        f"answers from a cache: a step on a batch that it has not seen takes {ratio:.3g} times "
        "as long as on one that it has"
    )


Times = tuple[list[float], list[float]]


def _unseen_in_a_row(contestant: Contestant) -> Times:
    """Seconds of a few steps in a row, on batches never seen and on those of the last round."""
    unseen, seen = [], []
    steps, count = contestant.steps, ROTATING
    for _ in range(UNSEEN_TRIES):
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


def _unseen_one_by_one(contestant: Contestant) -> Times:
    """Seconds of single steps; the first, which finds nothing warm, is left out of both."""
    unseen: list[float] = []
    seen: list[float] = []
    for _ in range(UNSEEN_TRIES):
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


def _is_slower(unseen: Sequence[float], seen: Sequence[float]) -> bool:
    apart = quantiles(unseen, method="inclusive")[0] > quantiles(seen, method="inclusive")[2]
    return median(unseen) > UNSEEN * median(seen) and apart


# Proof that nothing is computed before the clock starts, while a batch is handed over.

# Of each batch no more than this share of a step is done before its step begins: what a backend
# must do beforehand to save a quarter of it.
BEFOREHAND = 1 / 3
# What handing an array over may take beside that, in seconds and by its bytes: some five times as
# much as the slowest backend that ships needs.
ARRAY_SECONDS, BYTES_PER_SECOND = 1e-3, 1e8
HANDED_SAMPLES = 12


def check_handing_over(contestant: Contestant) -> None:
    """To hand batches over and make steps on them takes no longer than the steps and the copies.

    A backend that computes what comes of a batch as soon as it has it makes its steps in no time.
    The work shows between the handing over and the end of the first steps, whenever it is done: in
    processors' time and in the wall's. On a processor the smaller of both counts: threads that wait
    for the next call spin, and of the wall's time others take some. Of all rounds and of some more
    samples it is the middle one of the first, and the first quarter of the second, on a card the
    least.

    Raises:
        Refused: it takes longer.
    """
    if contestant.case.group.mode != "forward":
        return
    handed, on_cpu = list(contestant.handed), contestant.device == "cpu"
    step = median(p.row_processor if on_cpu else p.row for p in contestant.paces)
    allowed = max(BEFOREHAND * ROTATING * step, _of_copies(contestant))
    while _handing_seconds(handed, on_cpu) > allowed and len(handed) < HANDED_SAMPLES:
        handed.append(_handing_sample(contestant))
    taken = _handing_seconds(handed, on_cpu)
    contestant.record.handing_over = {"seconds": taken, "allowed": allowed, "step": step}
    if taken > allowed:
        raise Refused(
            f"works before the clock starts: to hand over {ROTATING} batches takes {taken:.3g} s "
            f"beside the steps (allowed: {allowed:.3g} s), and a step on one of them {step:.3g} s"
        )


def _handing_seconds(handed: Sequence[Handed], on_cpu: bool) -> float:
    walls = sorted(h.wall for h in handed)
    if on_cpu:
        return min(median(h.processor for h in handed), walls[len(walls) // 4])
    return walls[0]


def _of_copies(contestant: Contestant) -> float:
    """The seconds that handing over all batches may take whatever a step does."""
    arrays = [a for batch in contestant.case.batches for a in batch["inputs"].values()]
    return sum(ARRAY_SECONDS + a.nbytes / BYTES_PER_SECOND for a in arrays)


def _handing_sample(contestant: Contestant) -> Handed:
    """Another handing over, of batches that nobody has seen."""
    before, started = contestant.processor(), time.perf_counter()
    contestant.steps.feed(contestant.case.unseen())
    contestant.throughput(ROTATING)
    middle, now = contestant.processor(), time.perf_counter()
    seconds = contestant.throughput(ROTATING) / ROTATING
    processor = (contestant.processor() - middle) / ROTATING
    return Handed(now - started, middle - before).beyond(ROTATING, seconds, processor)


# Proof that the worker's clock, by which all is timed, goes as fast as our own.

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


# Proof that steps which nobody reads are made: each takes as long as one that is read.

# A step in a row takes no less than this share of the longer part of a step alone.
LEAST_SHARE = 0.75
# And of processors' time no less than this, as to wait for a step takes some too.
LEAST_PROCESSOR = 0.6
# Of the wall's time so much more than that alone that no less was done, whatever processors tell.
LONG = 1.25
# Where it is less than this, or the wall's time is too little, more samples are taken: so many.
CLEAR, PACE_SAMPLES = 0.75, 6
# Seconds of steps in a row of such a sample.
TRIED = 0.1


def check_pace(contestant: Contestant) -> None:
    """A step in a row, which nobody reads, takes about as long as one alone, which is read.

    While one is computed the next may be begun, and there is no reading; so that of the time
    alone the longer part is left, to begin a step or to wait for it. Where several steps are one
    call, calls stand for steps; threads that wait for them take processors' time, which tells
    nothing then. On a busy machine wall time tells little; there the time of
    processors does, which overlapping does not save. What the steps alone have led to is looked at
    as all that is timed (:func:`.values.check_rounds`).

    Raises:
        Refused: of the wall's time in every round, and in some more samples, it takes much less; or
            of the processors' in half of them, and of the wall's no more.
    """
    paces = contestant.paces
    on_processors = contestant.device == "cpu" and contestant.many == 1
    most = len(paces) + PACE_SAMPLES
    while less(paces, on_processors, CLEAR) and len(paces) < most:
        sample(contestant, TRIED)
    middle = sorted(paces, key=lambda p: p.processor_share)[len(paces) // 2]
    shares = {"share": middle.share, "processor_share": middle.processor_share}
    contestant.record.pace = asdict(middle) | shares
    if less(paces, on_processors, LEAST_PROCESSOR):
        raise Refused(
            f"does less where nobody reads: in a row a step takes {middle.row:.3g} s "
            f"({middle.row_processor:.3g} s of processors), and alone {middle.begun:.3g} s to "
            f"begin and {middle.done:.3g} s more until its results are there, of which reading is "
            f"{middle.again:.3g} s ({middle.alone_processor:.3g} s of processors)"
        )


def less(paces: Sequence[Pace], on_processors: bool, least: float) -> bool:
    """Whether a step in a row has taken too little: of the wall's time in every round, or of the
    processors' in half of them, where the work is a processor's.

    Of the wall's the best counts, as on a busy machine it tells little; the processors' is
    scattered about what it is, so that of many samples one is near the bound by chance. Threads
    that wait for one whose core is taken may spend it at full speed, more so in a step that is
    waited for: no less is done by what takes the longer time of the wall's in half of the samples.
    """
    if max(p.share for p in paces) < LEAST_SHARE:
        return True
    if not on_processors or median(p.share for p in paces) >= LONG:
        return False
    return median(p.processor_share for p in paces) < least


# 10 n steps must take 10 times as long as n, within this share.
LINEAR = 0.2
FACTOR = 10
RUN_TRIES = 3
# Seconds that the short runs take at first, and how much longer they get where the numbers are
# not convincing: noise goes away with length, a missing wait does not.
SHORT = 0.03
LONGER = 3
ATTEMPTS = 3


def check_waits(contestant: Contestant) -> None:
    """Ten times the steps take ten times as long, and nothing is left to do after them.

    Raises:
        Refused: they do not.
    """
    tried = []
    for attempt in range(ATTEMPTS):
        tried.append(_scaling(contestant, SHORT * LONGER**attempt))
        # Once, another process may have held up just the one step after.
        if not _unconvincing(tried[-1]) or (attempt and tried[-1].is_gross):
            break
    contestant.record.waits = {**asdict(tried[-1]), "attempts": len(tried)}
    reason = _unconvincing(tried[-1])
    if reason:
        raise Refused(f"does not wait for its work: {reason}")


@dataclass(frozen=True)
class Scaling:
    """Seconds of so many ``steps`` in short runs, of :data:`FACTOR` times as many in long ones, and
    of steps alone; ``ratios`` are those of the runs, by the clock and by the processors' time."""

    steps: int
    ratio: float
    ratios: Sequence[float]
    processor_ratios: Sequence[float]
    seconds: float
    short: float
    waited: float
    step_after_short: float
    step_after: float
    step_alone: float

    @property
    def is_gross(self) -> bool:
        """Whether so much was left undone that longer runs would only leave more."""
        return self.step_after - self.step_alone > FACTOR / 2 * self.step_alone


def _scaling(contestant: Contestant, seconds: float) -> Scaling:
    count = contestant.steps_in(seconds, least=1)
    short, long, left, alone, worked = [], [], [], [], []
    left_early, waited = [], []
    for _ in range(RUN_TRIES):
        waited += contestant.latencies(1)
        before = contestant.processor()
        short.append(contestant.throughput(count))
        between = contestant.processor()
        left_early.append(_one_step(contestant))
        waited += contestant.latencies(1)
        again = contestant.processor()
        long.append(contestant.throughput(FACTOR * count))
        worked.append((contestant.processor() - again) / max(between - before, 1e-9))
        # One step more takes as long as one after it, or something was still to be done.
        left.append(_one_step(contestant))
        alone.append(_one_step(contestant))
    return Scaling(
        steps=count,
        ratio=median(long) / median(short),
        ratios=[a / b for a, b in zip(long, short, strict=True)],
        processor_ratios=worked if contestant.device == "cpu" else [],
        seconds=median(long),
        short=median(short) / count,
        waited=min(waited),
        step_after_short=min(left_early),
        step_after=min(left),
        step_alone=min(alone),
    )


def _one_step(contestant: Contestant) -> float:
    """Seconds in which the worker answers with the result of a step, by its own outer clock."""
    return contestant.seconds_of_values(contestant.take(1), 1)


def _unconvincing(found: Scaling) -> str:
    """Why a backend seems not to wait; empty if it does, or if noise could explain it.

    Noise goes both ways: a ratio speaks against a backend where every try lies on the same side.
    """
    least, most = FACTOR * (1 - LINEAR), FACTOR * (1 + LINEAR)
    if max(found.ratios) < least or (min(found.ratios) > most and not _held_up(found)):
        return f"{FACTOR} times the steps take {found.ratio:.3g} times as long"
    after, alone = found.step_after, found.step_alone
    if after - alone > max(LINEAR * found.seconds, alone):
        return (
            f"{FACTOR * found.steps} steps are said to be done after {found.seconds:.3g} s, "
            f"and one step more then takes {after:.3g} s instead of {alone:.3g} s"
        )
    return ""


def _held_up(found: Scaling) -> bool:
    """Whether a busy machine has let short runs through and held up long ones: that takes no
    processor's time; or where threads wait at full speed, nothing was left to do after the short
    ones, and their steps took as long as one alone."""
    if min(found.processor_ratios, default=inf) <= FACTOR * (1 + LINEAR):
        return True
    done = found.step_after_short <= 2 * found.step_alone
    return done and found.short >= LEAST_SHARE * found.waited
