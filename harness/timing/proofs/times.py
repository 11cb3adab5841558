"""Proofs by time: a backend waits for its work, skips no step, and computes none in advance."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from math import inf
from statistics import median, quantiles

from harness.timing.contestant import Contestant, FeedTime, Pace, Refused, TimedRow
from harness.timing.timed_round import time_sample
from harness.timing.workload import ROTATING

# Proof that a step is not faster than the hardware: its matmuls run at most at HARDWARE x peak.

# The rate of matmuls in a step may be at most this multiple of the measured peak.
HARDWARE = 3.0
# The number of times that the peak is measured again, as the machine may have been busy before.
PEAK_TRIES = 3


def check_hardware(
    contestant: Contestant,
    products: int,
    peak: float,
    seconds: float,
    again: Callable[[], float],
) -> None:
    """Refuse a speed that the hardware cannot reach: a step must take at least :data:`HARDWARE`
    times the time that its matmuls take at the peak rate.

    ``products`` is the number of operations in these matmuls, ``peak`` is in FLOP/s, and
    ``seconds`` is the time of a step. If the step seems too fast, ``again`` measures the peak once
    more.

    Raises:
        Refused: the step is faster.
    """
    for tried in count():
        least = products / (HARDWARE * peak)
        contestant.record.hardware = {"least_seconds": least, "peak": peak}
        if seconds >= least:
            return
        if tried == PEAK_TRIES:
            raise Refused(
                f"faster than the hardware: a step takes {seconds:.3g} s, but its matrix products "
                f"would take longer even at {HARDWARE:g} times the measured peak: {least:.3g} s"
            )
        peak = max(peak, again())


# Proof that no results are cached: steps on new batches take no longer than on known batches.

UNSEEN_TRIES = 3
# A step on a new batch may take at most this multiple of the time on a known batch.
UNSEEN = 1.5


def check_unseen(contestant: Contestant) -> None:
    """Check that steps on new batches take no longer than steps on the batches of the last round.

    Each new batch is used once, so a backend cannot have cached its results. The check times both
    steps without a wait between them and single steps.

    Raises:
        Refused: steps on new batches take longer.
    """
    for _ in range(UNSEEN_TRIES):
        ways = {
            "in_a_row": _unseen_times(contestant, in_a_row=True),
            "one_by_one": _unseen_times(contestant, in_a_row=False),
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
        f"answers from a cache: a step on a new batch takes {ratio:.3g} times as long as a step "
        "on a known batch"
    )


Times = tuple[list[float], list[float]]


def _unseen_times(contestant: Contestant, in_a_row: bool) -> Times:
    """Return the seconds of steps on new batches, and the seconds of steps on the batches of the
    last round.

    With ``in_a_row`` the steps run without a wait between them, otherwise the worker waits for
    each. The first of several single steps is left out, because the processor's caches are still
    cold.
    """
    unseen: list[float] = []
    seen: list[float] = []
    for _ in range(UNSEEN_TRIES):
        if in_a_row:
            # On every backend, the first steps on newly allocated memory are slower. So feed other
            # batches first.
            contestant.steps.feed(contestant.case.make_unseen_batches(), beside=True)
            contestant.throughput(ROTATING)
        contestant.steps.feed(contestant.case.make_unseen_batches(), beside=True)
        for number, seconds in ((1, unseen), (0, seen)):
            # Steps on the batches of the last round warm up all caches.
            contestant.steps.turn(0)
            contestant.throughput(2 * ROTATING)
            contestant.steps.turn(number)
            if in_a_row:
                seconds.append(contestant.throughput(ROTATING))
            else:
                seconds += contestant.latencies(ROTATING)[1:]
    return unseen, seen


def _is_slower(unseen: Sequence[float], seen: Sequence[float]) -> bool:
    apart = quantiles(unseen, method="inclusive")[0] > quantiles(seen, method="inclusive")[2]
    return median(unseen) > UNSEEN * median(seen) and apart


# Proof that no step is computed before the clock starts, while the batches are fed.

# The allowed time to feed a batch, as a share of a step. A backend that saves a quarter of a step
# must do a quarter of a step in advance.
BEFOREHAND = 1 / 3
# The time allowed in addition per array, in seconds and by its bytes: about five times the time
# that the slowest built-in backend needs.
ARRAY_SECONDS, BYTES_PER_SECOND = 1e-3, 1e8
HANDED_SAMPLES = 12


def check_handing_over(contestant: Contestant) -> None:
    """Check that feeding batches takes no longer than copying them.

    A backend could compute the results when it receives a batch: its steps would then take no time.
    To detect this work, the check measures from the feeding of batches to the end of the first
    steps. Only forward passes are checked.

    On a CPU the check uses the smaller of two numbers: the median processor time (too large if idle
    threads spin), and the lower quartile of the wall times (too large if other processes run). On a
    GPU it uses the smallest wall time.

    Raises:
        Refused: feeding takes longer, also in further samples.
    """
    if contestant.case.group.mode != "forward":
        return
    handed, on_cpu = list(contestant.feed_times), contestant.device == "cpu"
    step = median(p.row_processor if on_cpu else p.row for p in contestant.paces)
    allowed = max(BEFOREHAND * ROTATING * step, _copy_seconds(contestant))
    while _feeding_seconds(handed, on_cpu) > allowed and len(handed) < HANDED_SAMPLES:
        handed.append(_sample_feeding(contestant))
    taken = _feeding_seconds(handed, on_cpu)
    contestant.record.handing_over = {"seconds": taken, "allowed": allowed, "step": step}
    if taken > allowed:
        raise Refused(
            f"works before the clock starts: feeding {ROTATING} batches takes {taken:.3g} s in "
            f"addition to the steps (allowed: {allowed:.3g} s), and one step takes {step:.3g} s"
        )


def _feeding_seconds(handed: Sequence[FeedTime], on_cpu: bool) -> float:
    walls = sorted(h.wall for h in handed)
    if on_cpu:
        return min(median(h.processor for h in handed), walls[len(walls) // 4])
    return walls[0]


def _copy_seconds(contestant: Contestant) -> float:
    """Return the seconds that copying all batches may take. The check always allows this time, even
    if the steps take less."""
    arrays = [a for batch in contestant.case.batches for a in batch["inputs"].values()]
    return sum(ARRAY_SECONDS + a.nbytes / BYTES_PER_SECOND for a in arrays)


def _sample_feeding(contestant: Contestant) -> FeedTime:
    before, started = contestant.processor(), time.perf_counter()
    contestant.steps.feed(contestant.case.make_unseen_batches())
    contestant.throughput(ROTATING)
    middle, now = contestant.processor(), time.perf_counter()
    seconds = contestant.throughput(ROTATING) / ROTATING
    processor = (contestant.processor() - middle) / ROTATING
    return FeedTime(now - started, middle - before).beyond(ROTATING, seconds, processor)


# Proof that the worker's clock, which times everything, runs as fast as the harness's clock.

# The two clocks are the system's, so they differ only by the time of messages. The allowed
# difference per row is MESSAGE seconds, plus WAITS times the worker's mean wait for a free core. To
# cheat by waiting longer, a worker would have to take the cores from its own steps.
MESSAGE, WAITS = 0.002, 3.0
# A baseline's rounds are not stored, so this many of its longest rows are compared.
LONGEST = 5


def check_clock(contestant: Contestant) -> None:
    """Compare the worker's clock with the harness's clock in the timed rounds.

    Raises:
        Refused: the worker's clock missed more time than messages take.
    """
    rows = [played.clock for played in contestant.timed_rounds]
    if contestant.entry.baseline:
        rows = sorted(contestant.clocks, key=lambda row: row.harness_seconds)[-LONGEST:]
    told, passed, allowed = compare_clocks(rows)
    contestant.record.clock = {"told": told, "passed": passed, "allowed": allowed}
    if passed - told > allowed:
        raise Refused(
            f"its clock goes wrong: in the better half of the rounds the worker reports {told:.4g} "
            f"s, but {passed:.4g} s have passed (allowed difference: {allowed:.2g} s)"
        )


def compare_clocks(rows: Sequence[TimedRow]) -> tuple[float, float, float]:
    """Return three sums of seconds: by the worker's clock, by the harness's clock, and the allowed
    difference.

    The sums are over just over half of the rows: the rows in which the worker's clock lost least. A
    speed is the median of its rounds, so a false clock must affect half of the rows to change it.
    In the other half, a busy machine may delay the messages between harness and worker.
    """
    kept = sorted(rows, key=lambda row: row.lost)[: len(rows) // 2 + 1]
    allowed = sum(MESSAGE + WAITS * row.wait for row in kept)
    return (
        sum(row.worker_seconds for row in kept),
        sum(row.harness_seconds for row in kept),
        allowed,
    )


# Proof that unread steps are computed: a step takes equally long whether its result is read or not.

# The least wall time of a step in a row, divided by the longer part of a single step.
LEAST_SHARE = 0.75
# The same limit for processor time: lower, because waiting for a step also takes processor time.
LEAST_PROCESSOR = 0.6
# If wall time has at least this share, processor time is ignored.
LONG = 1.25
# If the share of processor time is below CLEAR, or wall time is too short, up to PACE_SAMPLES
# samples are added.
CLEAR, PACE_SAMPLES = 0.75, 6
# Seconds of the steps in a row of a sample.
TRIED = 0.1


def check_pace(contestant: Contestant) -> None:
    """Check that a step without a wait takes about as long as a single step whose results are read.

    Without a wait, a step may start before the previous step has ended, and no result is read. So
    its time is compared with the longer part of a single step: its start, or the wait for its
    results.

    Wall time is unreliable on a busy machine, but overlapping steps do not shorten processor time.
    Processor time is used only on a CPU with one step per call: with several steps per call,
    waiting threads use processor time too. :func:`.values.check_rounds` compares the results of the
    single steps.

    Raises:
        Refused: the wall time is much too short in every round and sample. Or the median processor
            time is too short, and the wall time is not clearly longer than the time of a single
            step.
    """
    paces = contestant.paces
    on_processors = contestant.device == "cpu" and contestant.many == 1
    most = len(paces) + PACE_SAMPLES
    while is_too_short(paces, on_processors, CLEAR) and len(paces) < most:
        time_sample(contestant, TRIED)
    middle = sorted(paces, key=lambda p: p.processor_share)[len(paces) // 2]
    shares = {"share": middle.share, "processor_share": middle.processor_share}
    contestant.record.pace = asdict(middle) | shares
    if is_too_short(paces, on_processors, LEAST_PROCESSOR):
        raise Refused(
            f"computes less if results are not read: a step in a row takes {middle.row:.3g} s "
            f"(processor time: {middle.row_processor:.3g} s); a single step takes "
            f"{middle.begun:.3g} s to start and {middle.done:.3g} s more until its results are "
            f"there, of which reading takes {middle.again:.3g} s (processor time: "
            f"{middle.alone_processor:.3g} s)"
        )


def is_too_short(paces: Sequence[Pace], on_processors: bool, least: float) -> bool:
    """Return whether the steps without a wait took too little time compared with single steps. For
    processor time, too little is less than the share ``least`` of the single steps' time.

    The wall time must be too short in every round, because other processes may lengthen the single
    steps of some rounds. The processor time must be too short in the median, because single samples
    may be low by chance.

    A thread that waits for a busy core may spin, which lengthens the processor time of single steps
    most. So processor time is ignored if the median wall time of a step without a wait is clearly
    longer than the median wall time of a single step.
    """
    if max(p.share for p in paces) < LEAST_SHARE:
        return True
    if not on_processors or median(p.share for p in paces) >= LONG:
        return False
    return median(p.processor_share for p in paces) < least


# FACTOR times as many steps must take FACTOR times as long, within this share.
LINEAR = 0.2
FACTOR = 10
RUN_TRIES = 3
# Seconds of the first short runs, and the factor by which runs grow if the result is unclear. In
# longer runs noise disappears, but the effect of a missing wait stays.
SHORT = 0.03
LONGER = 3
ATTEMPTS = 3


def check_waits(contestant: Contestant) -> None:
    """Check that the backend waits for its work: 10 times the steps must take 10 times as long.

    Raises:
        Refused: the time grows differently, or work was left undone.
    """
    tried = []
    for attempt in range(ATTEMPTS):
        tried.append(_measure_scaling(contestant, SHORT * LONGER**attempt))
        # In the first attempt, another process may have delayed the step after the run.
        if not _explain_missing_wait(tried[-1]) or (attempt and tried[-1].is_gross):
            break
    contestant.record.waits = {**asdict(tried[-1]), "attempts": len(tried)}
    reason = _explain_missing_wait(tried[-1])
    if reason:
        raise Refused(f"does not wait for its work: {reason}")


@dataclass(frozen=True)
class Scaling:
    """The times of short runs of ``steps`` steps, of long runs, and of single steps, in seconds.

    A long run has :data:`FACTOR` times as many steps as a short run. ``ratios`` are the wall times
    of long runs divided by the wall times of short runs, and ``processor_ratios`` the same for
    processor times.
    """

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
        """True if a long run left so much work undone that no longer run needs to be timed: it
        would only leave more undone."""
        return self.step_after - self.step_alone > FACTOR / 2 * self.step_alone


def _measure_scaling(contestant: Contestant, seconds: float) -> Scaling:
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
        # The step after a run takes as long as the next step, unless the run left work undone.
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
    """Return the seconds from the request for one step until its result has arrived from the
    worker."""
    return contestant.seconds_of_values(contestant.reserve_steps(1), 1)


def _explain_missing_wait(found: Scaling) -> str:
    """Say why a backend seems to return before its work is done; empty if it waits for its work.

    Noise makes some ratios too large and others too small. So the explanation requires that all
    tries err in the same direction.
    """
    least, most = FACTOR * (1 - LINEAR), FACTOR * (1 + LINEAR)
    if max(found.ratios) < least or (min(found.ratios) > most and not _was_delayed(found)):
        return f"{FACTOR} times the steps take {found.ratio:.3g} times as long"
    after, alone = found.step_after, found.step_alone
    if after - alone > max(LINEAR * found.seconds, alone):
        return (
            f"the worker reports that {FACTOR * found.steps} steps are done after "
            f"{found.seconds:.3g} s, but the next step takes {after:.3g} s instead of {alone:.3g} s"
        )
    return ""


def _was_delayed(found: Scaling) -> bool:
    """Return whether other processes, and not the backend, explain why the long runs took too long.

    A delay by other processes adds wall time but no processor time. If waiting threads spin, they
    do use processor time. Then a second sign is required: the short runs left no work undone, and
    their steps take as long as single steps.
    """
    if min(found.processor_ratios, default=inf) <= FACTOR * (1 + LINEAR):
        return True
    done = found.step_after_short <= 2 * found.step_alone
    return done and found.short >= LEAST_SHARE * found.waited
