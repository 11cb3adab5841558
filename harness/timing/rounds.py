"""Measurement of one group (a model with its sizes and mode): prepare all backends, time rounds in
random order, run the proofs.

Only one worker computes at a time; all other workers wait.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from harness.timing.card import watch_gpu
from harness.timing.contestant import (
    BenchEvents,
    Contestant,
    Refused,
    TimedResult,
    Unsupported,
    fault_text,
)
from harness.timing.proofs import PROOFS
from harness.timing.proofs.values import check_values
from harness.timing.rates import compare_with_peaks, complete_record
from harness.timing.timed_round import time_round
from harness.timing.workload import SECRET, Batch
from harness.worker.remote import WorkerFault, missing_requirement, offers_path

# The candidate paths in the search for the fastest. In a forward pass ``equations`` leaves matmuls
# in their loops, and ``derived`` moves them out. If the framework has a compiler, ``compiled``
# compiles the program of ``derived``, and ``native-compiled`` the program of ``native``.
CANDIDATES = ("native", "derived", "compiled", "native-compiled", "equations")
# Compiling a step of native layers takes half a minute and makes it at most about twice as fast. So
# ``native-compiled`` is tried only if ``native`` takes less than this multiple of the fastest time.
NEAR = 2.5
# By mode, the path that runs the same as ``native`` if the framework has no native layers for the
# spec.
REPEATED = {"train": "equations", "forward": "derived"}
# Seconds of a trial of a path, of a batch of warm-up steps, and of the whole warm-up.
TRIAL, WARMING, WARMED = 0.1, 0.06, 5.0
TRIALS = 4
# Warm-up ends when the medians of two successive batches of steps differ by at most this share.
STEADY = 0.05
MOST_BATCHES = 60
# The number of tries whose best is the first estimate of a step's time. If a step takes more than
# LONG seconds, noise is small beside it, and one try suffices.
ESTIMATES = 3
LONG = 0.1

Tell = Callable[[TimedResult, str], None]


def measure(
    contestants: Sequence[Contestant],
    path: str,
    rounds: int,
    shuffle: random.Random,
    events: BenchEvents,
) -> None:
    """Measure all backends of a group, and store the measurements in the ``contestants`` (one per
    backend).

    ``path`` is the execution path or ``fastest``. ``shuffle`` chooses the order of the backends in
    each round.
    """

    def each(what: str, part: Callable[[Contestant], None], order: Sequence[Contestant]) -> None:
        for contestant in order:
            if contestant.result.measured:
                events.doing(contestant.result, what)
                contestant.attempt(part)

    each("preparing", lambda e: prepare(e, path, events.trying), contestants)
    each("warming up", warm_up, contestants)
    lots = {c.entry.label: SECRET.randrange(rounds) for c in contestants}
    with watch_gpu(contestants):
        for number in range(rounds):
            order = shuffle.sample(list(contestants), len(contestants))
            batches = contestants[0].case.make_unseen_batches()

            def timed(
                one: Contestant, batches: Sequence[Batch] = batches, number: int = number
            ) -> None:
                time_round(one, batches, lots[one.entry.label] == number)

            each(f"round {number + 1} of {rounds}", timed, order)
    each("reading its peak memory", _read_memory, contestants)
    for what, part in (*PROOFS, ("figures", complete_record)):
        each(f"proving: {what}", part, contestants)
    compare_with_peaks(contestants)


def _read_memory(contestant: Contestant) -> None:
    contestant.record.memory = contestant.steps.memory()


def prepare(contestant: Contestant, path: str, trying: Tell) -> None:
    """Start the worker, and prepare the execution path ``path``. If it is ``fastest``, several
    paths are tried, and the fastest path with correct results is used; ``trying`` is called before
    each trial.

    Raises:
        Unsupported: the backend does not offer the path.
    """
    contestant.record.hello = dict(contestant.start())
    if contestant.entry.baseline:
        chosen = _prepare_path(contestant, "native")
        check_values(contestant)
    elif path == "fastest":
        chosen = _prepare_fastest(contestant, trying)
    else:
        hello, case = contestant.record.hello, contestant.case
        if lacking := missing_requirement(hello, contestant.device, case.dtype, path=path):
            raise Unsupported(lacking)
        chosen = _prepare_path(contestant, path)
        check_values(contestant)
    if chosen.several > 1:
        _choose_steps_per_call(contestant, chosen)
    for name in ("path", "paths", "prepare", "first", "many", "settings"):
        setattr(contestant.record, name, getattr(chosen, name))


@dataclass
class TriedPath:
    """An execution path, and the result of trying it.

    - ``paths`` maps each layer to what runs it (``native`` or ``equations``).
    - ``prepare`` is the number of seconds to prepare the path, and ``first`` of its first step.
    - ``seconds`` is the time of a step, and ``right`` is True if the results are correct.
    - ``several`` is the largest number of steps that one call can run, and ``many`` the number that
      a call does run.
    - ``reason`` says why the path cannot be used, and ``lost`` is the error if the worker failed.
    """

    path: str
    paths: Mapping[str, str] = field(default_factory=dict)
    prepare: float = 0.0
    first: float = 0.0
    several: int = 1
    many: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    right: bool = False
    seconds: float | None = None
    reason: str = ""
    lost: WorkerFault | None = None

    @property
    def all_equations(self) -> bool:
        """True if the spec's equations ran for every layer, i.e. no layer of the framework was
        used. The optimizer is not considered."""
        layers = {label for name, label in self.paths.items() if name != "optimizer"}
        return self.right and layers == {"equations"}


def _prepare_fastest(contestant: Contestant, trying: Tell) -> TriedPath:
    """Try the paths that may differ in speed, and prepare the fastest path with correct results."""
    tried: list[TriedPath] = []
    starts = contestant.worker.starts
    repeated = REPEATED[contestant.case.group.mode]
    for path in CANDIDATES:
        offered = offers_path(contestant.record.hello, path)
        if offered and path == "native-compiled":
            # Only if the native path runs native layers, and is not much slower than the others.
            least = min((c.seconds for c in tried if c.seconds is not None), default=0.0)
            native = tried[0]
            own = native.seconds is not None and not native.all_equations
            offered = own and (native.seconds or 0.0) < NEAR * least
        if offered and (path != repeated or not tried[0].all_equations):
            trying(contestant.result, path)
            tried.append(_try_path(contestant, path, beside=bool(tried)))
    names = ("path", "right", "seconds", "reason")
    contestant.record.candidates = [{n: getattr(c, n) for n in names} for c in tried]
    lost = {c.path: c.lost for c in tried if c.lost is not None}
    right = {c.seconds: c for c in reversed(tried) if c.seconds is not None}
    if not right:
        for fault in lost.values():
            raise fault
        raise Refused("; ".join(dict.fromkeys(f"{c.path}: {c.reason}" for c in tried)))
    contestant.record.doubts = [f"{p} was not timed: {fault_text(f)}" for p, f in lost.items()]
    best = right[min(right)]
    if contestant.worker.starts == starts and contestant.worker.pid is not None:
        contestant.steps.select(best.path)
    else:
        # A trial ended the process, and the prepared paths are lost with it.
        best = _prepare_path(contestant, best.path)
    check_values(contestant)
    return best


def _try_path(contestant: Contestant, path: str, beside: bool) -> TriedPath:
    found = TriedPath(path)
    try:
        found = _prepare_path(contestant, path, beside)
        check_values(contestant)
        _estimate_step_time(contestant)
        found.seconds, found.right = _best_time(contestant), True
    except Refused as error:
        found.reason = str(error)
    except WorkerFault as fault:
        if fault.outcome.start_failed:
            raise
        # The lines below the first may have the framework's own stack frames.
        found.reason, *_ = fault_text(fault).split("\n")
        if fault.outcome.status != "error":
            found.lost = fault
    return found


def _choose_steps_per_call(contestant: Contestant, chosen: TriedPath) -> None:
    """Measure whether several steps per call are faster than one step per call, and use the faster
    setting.

    Several steps per call save the time of calls. They can still be slower, because XLA runs a loop
    of steps on fewer threads.
    """
    _estimate_step_time(contestant)
    alone = _best_time(contestant)
    contestant.many = contestant.steps.together(True)
    first = contestant.throughput(contestant.many)
    if _best_time(contestant) < alone:
        chosen.first += first
    else:
        contestant.many = contestant.steps.together(False)
    chosen.many = contestant.many


def _best_time(contestant: Contestant) -> float:
    """Return the shortest time per step of several trials. The longer times may have been caused by
    other processes."""
    count = contestant.steps_in(TRIAL)
    return min(contestant.throughput(count) / count for _ in range(TRIALS))


def _prepare_path(contestant: Contestant, path: str, beside: bool = False) -> TriedPath:
    payload = contestant.case.payload(path, contestant.device)
    if beside:  # a baseline may not know this argument
        payload["beside"] = True
    reply = contestant.steps.prepare(**payload)
    contestant.next, contestant.many = 0, 1
    several = int(reply.get("many", 1))
    if several > 1:
        contestant.steps.together(False)
    (first,) = contestant.latencies(1)
    paths, settings = dict(reply["paths"]), dict(reply.get("settings", {}))
    return TriedPath(path, paths, float(reply["seconds"]), first, several, 1, settings)


def _estimate_step_time(contestant: Contestant) -> float:
    """Estimate the time of a step, and store it; return a lower limit for later estimates.

    The limit is measured with the harness's clock: the seconds until the results of some steps
    arrived, divided by the number of steps. The worker measures the estimate itself. Without the
    limit, a worker that reports tiny times would have to run millions of steps.
    """
    count, tries, undone = 3, [], []
    for _ in range(ESTIMATES):
        tries += contestant.latencies(count)
        undone.append(contestant.seconds_of_values(contestant.reserve_steps(1), 1))
        if min(tries) > LONG:
            break
    least = min(undone) / (count + 1)
    contestant.latency = max(min(tries), least)
    return least


def warm_up(contestant: Contestant) -> None:
    """Run short series of steps until two successive series take about the same time per step;
    store the times. The peak memory counts from the end of this function."""
    least = _estimate_step_time(contestant)
    medians: list[float] = []
    steps, steady = 0, False
    deadline = time.monotonic() + WARMED
    while not steady and len(medians) < MOST_BATCHES and time.monotonic() < deadline:
        count = contestant.steps_in(WARMING, least=2)
        latencies = contestant.latencies(count)
        medians.append(median(latencies))
        contestant.latency = max(min(latencies), least)
        steps += count
        steady = len(medians) > 1 and abs(medians[-1] / medians[-2] - 1) <= STEADY
    contestant.record.warm_up = {"steps": steps, "steady": steady, "medians": medians}
    if contestant.carries and not contestant.entry.baseline:
        contestant.steps.parameters()  # the first reading may compile
    contestant.steps.forget_peaks()
