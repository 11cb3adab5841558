"""Proofs that use times: a backend waits for its work, skips no step, and computes no step before
the clock starts."""

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
    """Refuse a speed that the hardware cannot reach. ``peak`` is the measured rate of matmuls in
    FLOP/s. A step must take at least as long as its matmuls would take at :data:`HARDWARE` times
    this rate.

    ``products`` is the number of operations in these matmuls, and ``seconds`` the time of a step.
    If the step seems too fast, the function ``again`` measures the peak once more.

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
# Seconds of a series of steps, which has at most one step per batch, and of the steps before it.
SERIES, CACHES_WARM = 0.5, 1.0


def check_unseen(contestant: Contestant) -> None:
    """Check that a backend does not return cached results: steps on new batches must take no longer
    than steps on the batches of the last round.

    Each new batch is used once, so a backend cannot have cached its results. The check times steps
    without a wait between them, and also single steps.

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
    """Return two lists of seconds: of steps on new batches, and of steps on the batches of the last
    round.

    With ``in_a_row``, an entry is the time of several steps without a wait between them. Otherwise,
    it is the time of a single step that the worker waits for. The first single step on a new batch
    is left out, because the processor's caches are still cold.
    """
    unseen: list[float] = []
    seen: list[float] = []
    length = min(ROTATING, contestant.steps_in(SERIES))
    before = min(2 * ROTATING, contestant.steps_in(CACHES_WARM, least=1))
    for _ in range(UNSEEN_TRIES):
        if in_a_row:
            # On every backend, the first steps on newly allocated memory are slower. So feed other
            # batches first.
            contestant.steps.feed(contestant.case.make_unseen_batches(), beside=True)
            contestant.throughput(length)
        contestant.steps.feed(contestant.case.make_unseen_batches(), beside=True)
        for number, seconds in ((1, unseen), (0, seen)):
            # Steps on the batches of the last round warm up all caches.
            contestant.steps.turn(0)
            contestant.throughput(before)
            contestant.steps.turn(number)
            if in_a_row:
                seconds.append(contestant.throughput(length))
            else:
                seconds += contestant.latencies(length)[1:]
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
    """Check that feeding batches to the worker takes no longer than copying them.

    A backend could compute the results as soon as it receives a batch. Its steps would then take no
    time. To detect this, the check measures the time from the feeding of the batches to the end of
    the first steps, and subtracts the time of these steps. Only forward passes are checked.

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
    """Return the seconds that copying all batches may take. :func:`check_handing_over` always
    allows this time, even if the steps are shorter."""
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
    """Compare the worker's clock, which times the steps, with the harness's clock. A worker with a
    slow clock would seem fast.

    Raises:
        Refused: by the worker's clock, much less time has passed than messages explain.
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
    """Return three numbers of seconds, each summed over the better half of ``rows``: the time by
    the worker's clock, the time by the harness's clock, and their allowed difference.

    The better half has the rows in which the worker's clock missed least time. In the other half, a
    busy machine may have delayed the messages between harness and worker. A speed is the median of
    its rounds, so a wrong clock can change it only if it is wrong in the better half too.
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
    """Check that steps without a wait between them are computed although nobody reads their
    results: such a step must take about as long as a single step whose results are read.

    Without a wait, a step may start before the previous step has ended. So its time is compared
    with the longer part of a single step: its start, or the wait for its results.

    Wall time is unreliable on a busy machine, so the check also uses processor time, which
    overlapping steps do not shorten. But it does so only on a CPU with one step per call: with
    several steps per call, waiting threads use processor time too. :func:`.values.check_rounds`
    compares the results of the single steps.

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
    """Return whether the steps without a wait took too little time compared with single steps.

    The wall time must be too short in every round, because other processes may lengthen the single
    steps of some rounds.

    With ``on_processors``, a too short processor time suffices. In the median round, it must be
    less than the share ``least`` of a single step's processor time. The median is used because one
    round may be low by chance. While a thread waits for a busy core, it may use processor time,
    mostly in single steps. So processor time is ignored if the median wall time of a step without a
    wait is clearly longer than that of a single step.
    """
    if max(p.share for p in paces) < LEAST_SHARE:
        return True
    if not on_processors or median(p.share for p in paces) >= LONG:
        return False
    return median(p.processor_share for p in paces) < least


# FACTOR times as many steps must take FACTOR times as long, within this share. If a short run takes
# more than LONG_RUN seconds, noise is small beside it, and the factor FACTOR_OF_LONG suffices.
LINEAR = 0.2
FACTOR, FACTOR_OF_LONG = 10, 4
LONG_RUN = 0.2
RUN_TRIES = 3
# Seconds of the first short runs, and the factor by which runs grow if the result is unclear. In
# longer runs noise disappears, but the effect of a missing wait stays.
SHORT = 0.03
LONGER = 3
ATTEMPTS = 3


def check_waits(contestant: Contestant) -> None:
    """Check that the worker waits for the end of its steps: ``factor`` times as many steps must
    take ``factor`` times as long (see :class:`Scaling`).

    Raises:
        Refused: the time does not grow in this proportion, or steps were still running when the
            worker reported their end.
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
    """The times of short runs of ``steps`` steps, of long runs with ``factor`` times as many
    steps, and of single steps, in seconds.

    - ``ratios`` are the wall times of long runs divided by the wall times of short runs, and
      ``ratio`` is the ratio of their medians. ``processor_ratios`` are ratios of processor times.
    - ``seconds`` is the time of a long run, and ``short`` the time per step of a short run.
    - ``waited`` is the time of a single step. The next fields also include the transfer of its
      results: ``step_after_short`` after a short run, ``step_after`` after a long run, and
      ``step_alone`` after a single step.
    """

    steps: int
    factor: int
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
        """True if the step after a long run takes so long that the run must have left much work
        undone. Then no longer run needs to be timed: it would only leave more work undone."""
        return self.step_after - self.step_alone > self.factor / 2 * self.step_alone


def _measure_scaling(contestant: Contestant, seconds: float) -> Scaling:
    count = contestant.steps_in(seconds, least=1)
    factor = FACTOR_OF_LONG if count * contestant.latency > LONG_RUN else FACTOR
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
        long.append(contestant.throughput(factor * count))
        worked.append((contestant.processor() - again) / max(between - before, 1e-9))
        # The step after a run takes as long as the next step, unless the run left work undone.
        left.append(_one_step(contestant))
        alone.append(_one_step(contestant))
    return Scaling(
        steps=count,
        factor=factor,
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
    """Run one step; return the seconds from the request to the worker until the result has
    arrived."""
    return contestant.seconds_of_values(contestant.reserve_steps(1), 1)


def _explain_missing_wait(found: Scaling) -> str:
    """Say why a backend seems to report the end of its steps too early; return an empty text if it
    waits for their end.

    Noise makes some ratios too large and others too small. So the explanation requires that all
    ratios are too small, or that all are too large.
    """
    factor = found.factor
    least, most = factor * (1 - LINEAR), factor * (1 + LINEAR)
    if max(found.ratios) < least or (min(found.ratios) > most and not _was_delayed(found)):
        return f"{factor} times the steps take {found.ratio:.3g} times as long"
    after, alone = found.step_after, found.step_alone
    if after - alone > max(LINEAR * found.seconds, alone):
        return (
            f"the worker reports that {factor * found.steps} steps are done after "
            f"{found.seconds:.3g} s, but the next step takes {after:.3g} s instead of {alone:.3g} s"
        )
    return ""


def _was_delayed(found: Scaling) -> bool:
    """Return whether other processes, and not the backend, explain why the long runs took too long.

    A delay by other processes normally adds wall time but no processor time. If waiting threads
    spin, processor time grows too. Then the function requires two other signs: the short runs left
    no work undone, and their steps take as long as single steps.
    """
    if min(found.processor_ratios, default=inf) <= found.factor * (1 + LINEAR):
        return True
    done = found.step_after_short <= 2 * found.step_alone
    return done and found.short >= LEAST_SHARE * found.waited
