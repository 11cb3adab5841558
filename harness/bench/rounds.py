"""The measurement of one group: everyone ready, then rounds in shuffled order, then the proofs.

Never are two workers asked at once: while one is measured all others wait.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from harness.bench.contestant import CellResult, Entrant, Refused
from harness.bench.figures import finish
from harness.bench.proofs import check_again, check_unseen, check_values, check_waits
from harness.bench.workload import ROTATING
from harness.worker.remote import WorkerFault

# The paths among which the fastest right one is chosen. In a forward pass, which has no gradient,
# ``equations`` leaves products where they stand and ``derived`` moves them out of loops.
CANDIDATES = ("native", "derived", "equations")
# By mode, the path that is no other than ``native`` where the framework had nothing of its own.
REPEATED = {"train": "equations", "forward": "derived"}
# Seconds: of a candidate's try, of a batch of warming steps, of all warming, of a round, and of
# the steps in a round that are waited for one by one.
TRIAL, WARMING, WARMED, ROUND, WAITED = 0.1, 0.06, 5.0, 0.25, 0.06
TRIALS = 4
# Steady: the median of a batch of steps is this near to that of the batch before.
STEADY = 0.05
MOST_BATCHES = 60
# The time of a step is first taken from the best of so many tries.
ESTIMATES = 3

Tell = Callable[[CellResult, str], None]


def measure(
    entrants: Sequence[Entrant], path: str, rounds: int, shuffle: random.Random, tell: Tell
) -> None:
    """Measure all entrants of a group; what came of it is in their results."""

    def each(what: str, part: Callable[[Entrant], None], order: Sequence[Entrant]) -> None:
        for entrant in order:
            if entrant.result.measured:
                tell(entrant.result, what)
                entrant.attempt(part)

    each("preparing", lambda e: prepare(e, path), entrants)
    each("warming up", warm_up, entrants)
    for number in range(rounds):
        order = shuffle.sample(list(entrants), len(entrants))
        each(f"round {number + 1} of {rounds}", one_round, order)
    for part in (check_waits, check_unseen, check_again, finish):
        each("proving", part, entrants)


def prepare(entrant: Entrant, path: str) -> None:
    """Start the worker and have it ready on the path asked for, or on the fastest right one."""
    entrant.record.hello = dict(entrant.start())
    if entrant.contestant.baseline:
        chosen = _prepare_path(entrant, "native")
        chosen["right"] = True
        check_values(entrant)
    elif path == "fastest":
        chosen = _fastest(entrant)
    else:
        chosen = _prepare_path(entrant, path)
        check_values(entrant)
    if chosen["several"] > 1:
        _pace(entrant, chosen)
    for name in ("path", "paths", "prepare", "first", "many", "settings"):
        setattr(entrant.record, name, chosen[name])


def _fastest(entrant: Entrant) -> dict[str, Any]:
    """Try every path that may differ, and prepare the fastest of those that are right."""
    tried: list[dict[str, Any]] = []
    starts = entrant.worker.starts
    repeated = REPEATED[entrant.case.group.mode]
    for path in CANDIDATES:
        if path != repeated or not _all_equations(tried[0]):
            tried.append(_try_path(entrant, path, beside=bool(tried)))
    right = [c for c in tried if c["right"]]
    names = ("path", "right", "seconds", "reason")
    entrant.record.candidates = [{n: c[n] for n in names} for c in tried]
    if not right:
        raise Refused("; ".join(dict.fromkeys(f"{c['path']}: {c['reason']}" for c in tried)))
    best = min(right, key=lambda c: float(c["seconds"]))
    if entrant.worker.starts == starts and entrant.worker.pid is not None:
        entrant.call("select", path=best["path"])
    else:
        # A path that was tried has cost the process, and with it what was prepared before.
        best = {**_prepare_path(entrant, best["path"]), "right": True, "seconds": best["seconds"]}
    check_values(entrant)
    return best


def _all_equations(tried: Mapping[str, Any]) -> bool:
    """Whether a path that was tried ran nothing of the framework's own but its optimizer."""
    layers = {label for name, label in tried.get("paths", {}).items() if name != "optimizer"}
    return bool(tried["right"]) and layers == {"equations"}


def _try_path(entrant: Entrant, path: str, beside: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"path": path, "right": False, "seconds": None, "reason": ""}
    try:
        found |= _prepare_path(entrant, path, beside)
        check_values(entrant)
        _settle(entrant)
        found |= {"right": True, "seconds": _tried(entrant)}
    except Refused as error:
        found["reason"] = str(error)
    except WorkerFault as fault:
        if fault.outcome.status != "error":
            raise
        found["reason"] = f"{fault.verb}: {fault.outcome.cause}"
    return found


def _pace(entrant: Entrant, chosen: dict[str, Any]) -> None:
    """Try several steps in a call, and leave it at that if it is faster.

    They save what a call costs; in one loop, though, XLA spreads the work over fewer threads.
    """
    _settle(entrant)
    alone = _tried(entrant)
    entrant.many = int(entrant.call("together", wanted=True))
    first = entrant.throughput(entrant.many)
    if _tried(entrant) < alone:
        chosen["first"] += first
    else:
        entrant.many = int(entrant.call("together", wanted=False))
    chosen["many"] = entrant.many


def _tried(entrant: Entrant) -> float:
    """The best of some tries: one that the machine was busy in must not decide."""
    count = entrant.steps_in(TRIAL)
    return min(entrant.throughput(count) / count for _ in range(TRIALS))


def _prepare_path(entrant: Entrant, path: str, beside: bool = False) -> dict[str, Any]:
    payload = entrant.case.payload(path, entrant.device) | ({"beside": True} if beside else {})
    reply = entrant.call("prepare", **payload)
    entrant.next, entrant.many = 0, 1
    several = int(reply.get("many", 1))
    if several > 1:
        entrant.call("together", wanted=False)
    (first,) = entrant.latencies(1)
    return {
        "path": path,
        "paths": dict(reply["paths"]),
        "prepare": float(reply["seconds"]),
        "first": first,
        "several": several,
        "many": 1,
        "settings": dict(reply.get("settings", {})),
    }


def _settle(entrant: Entrant) -> float:
    """Estimate the time of a step, from the backend's own word and from what it leaves undone.

    Returns the part that does not rest on its word: a backend that says at once that it is done
    must not be asked for millions of steps.
    """
    count, tries, undone = 3, [], []
    for _ in range(ESTIMATES):
        tries += entrant.latencies(count)
        undone.append(entrant.timed_call("values", first=entrant.take(1), count=1)[1])
    least = min(undone) / (count + 1)
    entrant.latency = max(min(tries), least)
    return least


def warm_up(entrant: Entrant) -> None:
    """Run batches of steps until two in a row take the same; shown in the record."""
    least = _settle(entrant)
    medians: list[float] = []
    steps, steady = 0, False
    deadline = time.monotonic() + WARMED
    while not steady and len(medians) < MOST_BATCHES and time.monotonic() < deadline:
        count = entrant.steps_in(WARMING, least=2)
        latencies = entrant.latencies(count)
        medians.append(median(latencies))
        entrant.latency = max(min(latencies), least)
        steps += count
        steady = len(medians) > 1 and abs(medians[-1] / medians[-2] - 1) <= STEADY
    entrant.record.warm_up = {"steps": steps, "steady": steady, "medians": medians}


def one_round(entrant: Entrant) -> None:
    """One number of throughput and some of latency, after untimed steps of both kinds."""
    count = entrant.steps_in(ROUND)
    entrant.throughput(entrant.steps_in(WARMING, least=1))
    entrant.result.seconds.append(entrant.throughput(count) / count)
    entrant.result.steps = count
    waited = entrant.latencies(max(3, min(ROTATING * 8, entrant.steps_in(WAITED))))
    entrant.record.latencies += waited
