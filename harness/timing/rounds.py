"""The measurement of one group: everyone ready, then rounds in shuffled order, then the proofs.

Never are two workers asked at once: while one is measured all others wait.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from harness.timing.card import watched
from harness.timing.contestant import Contestant, Refused, TimedResult, Unsupported, fault_text
from harness.timing.events import BenchEvents
from harness.timing.figures import compare_with_peaks, finish
from harness.timing.play import one_round
from harness.timing.proofs import PROOFS
from harness.timing.proofs.values_agree import check_values
from harness.timing.workload import SECRET, Batch
from harness.worker.remote import WorkerFault, not_offered, offers_path

# The paths among which the fastest right one is chosen. In a forward pass, which has no gradient,
# ``equations`` leaves products where they stand and ``derived`` moves them out of loops; what
# ``compiled`` gives to the framework's compiler, where there is one, is what ``derived`` runs, and
# ``native-compiled`` what ``native`` does.
CANDIDATES = ("native", "derived", "compiled", "native-compiled", "equations")
# A compiler takes a step of the framework's own layers for half a minute, and makes it little more
# than twice as fast at best: it is tried where that might be the fastest path.
NEAR = 2.5
# By mode, the path that is no other than ``native`` where the framework had nothing of its own.
REPEATED = {"train": "equations", "forward": "derived"}
# Seconds: of a candidate's try, of a batch of warming steps, and of all warming.
TRIAL, WARMING, WARMED = 0.1, 0.06, 5.0
TRIALS = 4
# Steady: the median of a batch of steps is this near to that of the batch before.
STEADY = 0.05
MOST_BATCHES = 60
# The time of a step is first taken from the best of so many tries.
ESTIMATES = 3

Tell = Callable[[TimedResult, str], None]


def measure(
    contestants: Sequence[Contestant],
    path: str,
    rounds: int,
    shuffle: random.Random,
    events: BenchEvents,
) -> None:
    """Measure all contestants of a group; what came of it is in their results."""

    def each(what: str, part: Callable[[Contestant], None], order: Sequence[Contestant]) -> None:
        for contestant in order:
            if contestant.result.measured:
                events.doing(contestant.result, what)
                contestant.attempt(part)

    each("preparing", lambda e: prepare(e, path, events.trying), contestants)
    each("warming up", warm_up, contestants)
    lots = {c.entry.label: SECRET.randrange(rounds) for c in contestants}
    with watched(contestants):
        for number in range(rounds):
            order = shuffle.sample(list(contestants), len(contestants))
            batches = contestants[0].case.unseen()

            def timed(
                one: Contestant, batches: Sequence[Batch] = batches, number: int = number
            ) -> None:
                one_round(one, batches, lots[one.entry.label] == number)

            each(f"round {number + 1} of {rounds}", timed, order)
    for part in (*PROOFS, finish):
        each(f"proving: {_words(part)}", part, contestants)
    compare_with_peaks(contestants)


def _words(part: Callable[[Contestant], None]) -> str:
    """What a part of the measurement looks at, by the name of its module: ``clock is true``."""
    return part.__module__.rpartition(".")[2].replace("_", " ")


def prepare(contestant: Contestant, path: str, trying: Tell) -> None:
    """Start the worker and have it ready on the path asked for, or on the fastest right one;
    ``trying`` is told of each path that is tried.

    Raises:
        Unsupported: the backend does not offer the path.
    """
    contestant.record.hello = dict(contestant.start())
    if contestant.entry.baseline:
        chosen = _prepare_path(contestant, "native")
        chosen["right"] = True
        check_values(contestant)
    elif path == "fastest":
        chosen = _fastest(contestant, trying)
    else:
        hello, case = contestant.record.hello, contestant.case
        if lacking := not_offered(hello, contestant.device, case.dtype, path=path):
            raise Unsupported(lacking)
        chosen = _prepare_path(contestant, path)
        check_values(contestant)
    if chosen["several"] > 1:
        _pace(contestant, chosen)
    for name in ("path", "paths", "prepare", "first", "many", "settings"):
        setattr(contestant.record, name, chosen[name])


def _fastest(contestant: Contestant, trying: Tell) -> dict[str, Any]:
    """Try every path that may differ, and prepare the fastest of those that are right."""
    tried: list[dict[str, Any]] = []
    starts = contestant.worker.starts
    repeated = REPEATED[contestant.case.group.mode]
    for path in CANDIDATES:
        offered = offers_path(contestant.record.hello, path)
        if path == "native-compiled":
            offered = offered and _may_be_fastest(tried)
        if offered and (path != repeated or not _all_equations(tried[0])):
            trying(contestant.result, path)
            tried.append(_try_path(contestant, path, beside=bool(tried)))
    right = [c for c in tried if c["right"]]
    names = ("path", "right", "seconds", "reason")
    contestant.record.candidates = [{n: c[n] for n in names} for c in tried]
    lost = {c["path"]: c["lost"] for c in tried if "lost" in c}
    if not right:
        if lost:
            raise next(iter(lost.values()))
        raise Refused("; ".join(dict.fromkeys(f"{c['path']}: {c['reason']}" for c in tried)))
    contestant.record.doubts = [f"{p} was not timed: {fault_text(f)}" for p, f in lost.items()]
    best = min(right, key=lambda c: float(c["seconds"]))
    if contestant.worker.starts == starts and contestant.worker.pid is not None:
        contestant.steps.select(best["path"])
    else:
        # A path that was tried has cost the process, and with it what was prepared before.
        best = {
            **_prepare_path(contestant, best["path"]),
            "right": True,
            "seconds": best["seconds"],
        }
    check_values(contestant)
    return best


def _may_be_fastest(tried: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the native path runs layers of the framework's own, not much slower than others."""
    seconds = [float(c["seconds"]) for c in tried if c["right"]]
    native = tried[0]
    return (
        native["right"] and not _all_equations(native) and native["seconds"] < NEAR * min(seconds)
    )


def _all_equations(tried: Mapping[str, Any]) -> bool:
    """Whether a path that was tried ran nothing of the framework's own but its optimizer."""
    layers = {label for name, label in tried.get("paths", {}).items() if name != "optimizer"}
    return bool(tried["right"]) and layers == {"equations"}


def _try_path(contestant: Contestant, path: str, beside: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"path": path, "right": False, "seconds": None, "reason": ""}
    try:
        found |= _prepare_path(contestant, path, beside)
        check_values(contestant)
        _settle(contestant)
        found |= {"right": True, "seconds": _tried(contestant)}
    except Refused as error:
        found["reason"] = str(error)
    except WorkerFault as fault:
        if fault.outcome.start_failed:
            raise
        # Below its first line an error may have the frames of a framework's own calls.
        found["reason"], *_ = fault_text(fault).split("\n")
        if fault.outcome.status != "error":
            found["lost"] = fault
    return found


def _pace(contestant: Contestant, chosen: dict[str, Any]) -> None:
    """Try several steps in a call, and leave it at that if it is faster.

    They save what a call costs; in one loop, though, XLA spreads the work over fewer threads.
    """
    _settle(contestant)
    alone = _tried(contestant)
    contestant.many = contestant.steps.together(True)
    first = contestant.throughput(contestant.many)
    if _tried(contestant) < alone:
        chosen["first"] += first
    else:
        contestant.many = contestant.steps.together(False)
    chosen["many"] = contestant.many


def _tried(contestant: Contestant) -> float:
    """The best of some tries: one that the machine was busy in must not decide."""
    count = contestant.steps_in(TRIAL)
    return min(contestant.throughput(count) / count for _ in range(TRIALS))


def _prepare_path(contestant: Contestant, path: str, beside: bool = False) -> dict[str, Any]:
    payload = contestant.case.payload(path, contestant.device)
    if beside:  # which a baseline need not know
        payload["beside"] = True
    reply = contestant.steps.prepare(**payload)
    contestant.next, contestant.many = 0, 1
    several = int(reply.get("many", 1))
    if several > 1:
        contestant.steps.together(False)
    (first,) = contestant.latencies(1)
    return {
        "path": path,
        "paths": dict(reply["paths"]),
        "prepare": float(reply["seconds"]),
        "first": first,
        "several": several,
        "many": 1,
        "settings": dict(reply.get("settings", {})),
    }


def _settle(contestant: Contestant) -> float:
    """Estimate the time of a step, from the backend's own word and from what it leaves undone.

    Returns the part that does not rest on its word: a backend that says at once that it is done
    must not be asked for millions of steps.
    """
    count, tries, undone = 3, [], []
    for _ in range(ESTIMATES):
        tries += contestant.latencies(count)
        undone.append(contestant.seconds_of_values(contestant.take(1), 1))
    least = min(undone) / (count + 1)
    contestant.latency = max(min(tries), least)
    return least


def warm_up(contestant: Contestant) -> None:
    """Run batches of steps until two in a row take the same; shown in the record."""
    least = _settle(contestant)
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
        contestant.steps.parameters()  # a framework may compile what reads them, the first time
