"""Proofs by values: the timed steps make what the oracle makes, and what single steps make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.oracle.case import step_values
from harness.oracle.rounding import shaken
from harness.oracle.tolerance import Deviation, K, digits, worst
from harness.oracle.yardstick import Expected, apart
from harness.timing.contestant import Contestant, Played, Refused
from harness.timing.workload import ROTATING, SECRET, Left, TimedCase, kind

# Proof that steps in a row leave behind what the same steps leave one by one, each of them read.
#
# Of steps that are timed nobody reads the results, so that a backend might do less of them. Here
# all that goes from step to step is held against the same steps made again, and so are results that
# are chosen once the steps are over. Lengths, batches and last places of parameters are drawn anew
# in the parent: no worker knows which steps will be looked at.

# Steps of the longest run that is made again: as many as take so many seconds, between these.
LEAST, STEPS, SECONDS = 6, 24, 0.04
# Runs beside it, by mode: a forward pass hands nothing on, so each shows the result of one step.
FURTHER = {"train": 1, "forward": 4}
# Of a whole round, which may be hundreds of steps, so much may be off before it is asked what
# rounding alone would do to it.
ROUND = 0.02
# Reading what a round has left may take longer than reading it again by this share of the round,
# and by so many seconds.
LEFT, LEFT_SECONDS = 0.2, 0.02


@dataclass(frozen=True)
class Run:
    """Steps from the start: how many, and which of them has its results read."""

    length: int
    read: int


def check_timed_way(contestant: Contestant) -> None:
    """Short runs of steps as they are timed lead to what the same steps lead to one by one.

    What is allowed is as for values: sixteen times the noise, which is measured by the same steps
    from parameters that differ in their last places.

    Raises:
        Refused: they do not.
    """
    case, steps = contestant.case, contestant.steps
    steps.feed(case.unseen())
    start = _shaken(contestant)
    runs = sorted(_runs(contestant), key=lambda run: run.length)
    found: ArrayDict = {}
    for run in runs:
        steps.restart(start)
        steps.throughput(0, run.length)
        found |= _named(run.read, steps.last(run.length - 1 - run.read))
    found |= _left(contestant, runs[-1].length, start)
    expected = _one_by_one(contestant, runs, start)
    noise: Mapping[str, float] = {}
    deviations = case.compare(found, Expected.within(expected, noise, case.dtype))
    if not all(d.agrees for d in deviations):
        noise = apart(expected, _one_by_one(contestant, runs, _shaken(contestant)), kind)
        deviations = case.compare(found, Expected.within(expected, noise, case.dtype))
    furthest = worst(deviations)
    contestant.record.timed_way = {
        "steps": runs[-1].length,
        "runs": len(runs),
        "compared": len(deviations),
        **_told(furthest),
    }
    if not furthest.agrees:
        raise Refused(_refusal(runs[-1].length, furthest))


def check_rounds(contestant: Contestant) -> None:
    """One round that was timed, drawn by lot once it was over, is made again step by step, and so
    are the samples of a pace. Where nothing goes from step to step, the results of some steps of
    every round are.

    Raises:
        Refused: it has left something else, or work for whoever reads what it has left.
    """
    played = [p for p in contestant.played if p.drawn or not contestant.carries]
    furthest: Deviation | None = None
    for one in played:
        found = _again(contestant, one)
        furthest = worst([found, furthest]) if furthest else found
        told = {"rounds": len(played), "steps": one.steps, **_told(furthest)}
        contestant.record.rounds_again = told
        if not furthest.agrees:
            raise Refused(_refusal(one.steps, furthest))
        allowed = max(LEFT * one.seconds, LEFT_SECONDS)
        first, again = one.reading or (0.0, 0.0)
        if first - again > allowed:
            raise Refused(
                f"leaves work for later: to read what a round of {one.seconds:.3g} s has left "
                f"takes {first:.3g} s, and {again:.3g} s a second time"
            )


def _again(contestant: Contestant, played: Played) -> Deviation:
    """The furthest of what a round has left from what its steps leave one by one."""
    case, steps = contestant.case, contestant.steps
    steps.feed(played.batches)
    found: ArrayDict = {}
    for read, results in played.reads.items():
        found |= _named(read, results)
    if not contestant.carries:
        steps.restart()
        expected: ArrayDict = {}
        for read in played.reads:
            expected |= _named(read, steps.values(read, 1)[0])
        # Outputs of single steps have the noise of the outputs that the oracle was asked for.
        noise = dict.fromkeys(expected, max(case.expected.noise(case.dtype).values()))
        return worst(case.compare(found, Expected.within(expected, noise, case.dtype)))
    start = case.material.parameters
    if played.parameters:
        found |= _carried(contestant, _steps_until(played), played.parameters, start)
    expected = _replayed(contestant, played, start)
    noise = dict.fromkeys(expected, ROUND / K)
    furthest = worst(case.compare(found, Expected.within(expected, noise, case.dtype)))
    if furthest.agrees:
        return furthest
    rounding = apart(expected, _replayed(contestant, played, _shaken(contestant)), kind)
    noise = {n: max(rounding[n], share) for n, share in noise.items()}
    return worst(case.compare(found, Expected.within(expected, noise, case.dtype)))


def _replayed(contestant: Contestant, played: Played, start: ArrayDict) -> ArrayDict:
    steps = contestant.steps
    steps.restart(start)
    found: ArrayDict = {}
    for number, (first, count) in enumerate(played.calls, start=1):
        done = first
        for read in sorted(r for r in played.reads if first <= r < first + count):
            steps.latency(done, read - done)
            found |= _named(read, steps.values(read, 1)[0])
            done = read + 1
        steps.latency(done, first + count - done)
        if number == played.until and played.parameters:
            found |= _left(contestant, _steps_until(played), start)
    return found


def _steps_until(played: Played) -> int:
    """How many had been made when it was read what they had left."""
    return sum(count for _, count in played.calls[: played.until])


def _runs(contestant: Contestant) -> Collection[Run]:
    """The longest run, and some short ones; the steps that are read are drawn among the last."""
    many, further = contestant.many, FURTHER[contestant.case.group.mode]
    most = max(LEAST, min(STEPS, contestant.steps_in(SECONDS)))
    lengths = [2 + SECRET.randrange(LEAST) for _ in range(further)]
    lengths.append(most + SECRET.randrange(LEAST))
    whole = [-(-length // many) * many for length in lengths]
    runs = [Run(length, length - 1 - SECRET.randrange(many)) for length in whole]
    return {run.read: run for run in runs}.values()


def _one_by_one(contestant: Contestant, runs: Sequence[Run], start: ArrayDict) -> ArrayDict:
    """The results that the runs have read, and what is left after the longest."""
    steps, done = contestant.steps, 0
    found: ArrayDict = {}
    steps.restart(start)
    for read in sorted({run.read for run in runs}):
        steps.latency(done, read - done)
        found |= _named(read, steps.values(read, 1)[0])
        done = read + 1
    steps.latency(done, runs[-1].length - done)
    return found | _left(contestant, runs[-1].length, start)


def _left(contestant: Contestant, count: int, start: ArrayDict) -> ArrayDict:
    return _carried(contestant, count, contestant.steps.parameters(), start)


def _carried(contestant: Contestant, count: int, left: Left, start: ArrayDict) -> ArrayDict:
    """All that goes from step to step, parameters by how far they have moved from the start."""
    material = replace(contestant.case.material, parameters=start)
    found = step_values(count, {"results": {}, **left}, material)
    return found | {f"step {count}: {n}": a for n, a in left["others"].items()}


def _named(index: int, results: Mapping[str, Array]) -> ArrayDict:
    return {f"step {index + 1}: {n}": a for n, a in results.items()}


def _shaken(contestant: Contestant) -> ArrayDict:
    """The first parameters, but for their last places, which are drawn."""
    random = np.random.default_rng(SECRET.getrandbits(64))
    return shaken(contestant.case.material.parameters, contestant.case.dtype, random)


def _told(furthest: Deviation) -> dict[str, object]:
    return {"worst": furthest.name, "error": furthest.error, "allowed": furthest.tolerance}


def _refusal(steps: int, furthest: Deviation) -> str:
    what = furthest.reason or f"is off by {furthest.error:.2e} (allowed: {furthest.tolerance:.2e})"
    return (
        f"differs: after {steps} steps as they are timed, {furthest.name} {what} "
        "from that after the same steps one by one"
    )


# Proof that a round was right: one of its steps, drawn once it is over, is the oracle's.
#
# The first steps are known to everybody: a backend may be right on the first batches that it is
# given, or in its first steps, and do nothing later, as long as it always does the same nothing.
# The batches of a round are drawn in the parent, and which of its steps is asked for, too.


def check_step(contestant: Contestant) -> None:
    """A step of a round that was timed makes of what the steps before have left what the oracle
    makes of it; or where nothing is left, it has the oracle's results.

    Raises:
        Refused: it does not.
    """
    played = [p for p in contestant.played if p.drawn or not contestant.carries]
    if not played:
        return
    one = SECRET.choice(played)
    again = _step_again if contestant.carries else _read
    number, index, left, found = again(contestant, one)
    expected = contestant.case.following(number, one.batches[index % ROTATING], left)
    deviations = _by_noise(contestant, expected, found)
    furthest = worst(deviations)
    contestant.record.later_step = {
        "step": number,
        "compared": len(deviations),
        "worst": furthest.name,
        "error": furthest.error,
        "ratio": furthest.ratio,
    }
    if not furthest.agrees:
        raise Refused(f"differs from the oracle in the middle of a round: {furthest}")


def _by_noise(contestant: Contestant, expected: Expected, found: Arrays) -> list[Deviation]:
    """Held against the noise of the first steps; and where that is too little, against this step's
    own, which takes longer to measure."""
    case = contestant.case
    known: dict[str, float] = {}
    for name, error in case.expected.noise(case.dtype).items():
        of = name.partition(": ")[2]
        known[of] = max(error, known.get(of, 0.0))
    noise = {name: known.get(name.partition(": ")[2], 0.0) for name in expected.values}
    quick = case.compare(found, Expected.within(expected.values, noise, case.dtype))
    return quick if all(d.agrees for d in quick) else case.compare(found, expected)


# The number of a step, its index, what those before it have left, and what it has made.
Found = tuple[int, int, Left, Arrays]


def _read(contestant: Contestant, played: Played) -> Found:
    """A step whose results were read when a clock stopped."""
    material, (index, results) = contestant.case.material, SECRET.choice([*played.reads.items()])
    left: Left = {
        "parameters": material.parameters,
        "statistics": material.statistics,
        "others": {},
    }
    return index + 1, index, left, contestant.case.found([results], {}, index + 1)


def _step_again(contestant: Contestant, played: Played) -> Found:
    """A step of the round made again, what those before it have left, and what it has made."""
    steps, train = contestant.steps, contestant.case.group.mode == "train"
    before = SECRET.randrange(played.steps)
    number = before + 1
    steps.feed(played.batches)
    steps.restart()
    for first, count in played.calls:
        if before < count:
            break
        steps.latency(first, count)
        before -= count
    steps.latency(first, before)
    left = steps.parameters()
    results = steps.values(first + before, 1)
    after: Left = steps.parameters() if train else {}
    found = contestant.case.found(results, after, number, left["parameters"])
    return number, first + before, left, found


# What a baseline's losses and outputs may be off: it may be another optimizer's.
BASELINE = 1e-3

Values = Sequence[Arrays]


def check_values(contestant: Contestant) -> None:
    """The results of the first steps are those of the oracle; :class:`Refused` if not."""
    results, after = compared_steps(contestant)
    case = contestant.case
    found = case.found(results, after)
    if contestant.entry.baseline:
        _check_baseline(contestant, found)
        return
    deviations = case.compare(found)
    told = [d for d in deviations if not d.void]
    if not told:
        raise Refused(
            f"nobody can tell whether it is right: in {case.dtype} every result of its steps is "
            "lost in rounding, or not finite"
        )
    furthest = worst(deviations)
    contestant.record.values = {
        "compared": len(told),
        "worst": furthest.name,
        "error": furthest.error,
        "ratio": furthest.ratio,
        "digits": told_digits(case, deviations),
        "agrees": all(d.agrees for d in deviations),
    }
    wrong = [d for d in deviations if not d.agrees]
    if wrong:
        more = f", and {len(wrong) - 1} more of {len(deviations)} tensors" if wrong[1:] else ""
        raise Refused(f"differs: {furthest}{more}")


def told_digits(case: TimedCase, deviations: Sequence[Deviation]) -> float | None:
    """Decimal digits of the worst tensor, of those that are more than rounding in the case's dtype;
    None where all are nothing else."""
    tells = case.expected.tells
    errors = [d.error for d in deviations if not d.void and tells(d.name, case.dtype)]
    return digits(max(errors)) if errors else None


def compared_steps(contestant: Contestant) -> tuple[Values, Left]:
    """The results of the steps that the oracle has made too, from the start, and what is left."""
    contestant.steps.restart()
    results: list[Arrays] = []
    for index in contestant.case.compared:
        results += contestant.steps.values(index, 1)
    train = contestant.case.group.mode == "train" and not contestant.entry.baseline
    return results, contestant.steps.parameters() if train else {}


def _check_baseline(contestant: Contestant, found: Arrays) -> None:
    expected = contestant.case.expected.values
    errors = {n: _gap(a, expected[n]) for n, a in found.items() if n in expected}
    if not errors:
        raise Refused("differs: nothing was compared")
    furthest = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    error = errors[furthest]
    agrees = error <= BASELINE
    contestant.record.values = {"compared": len(errors), "worst": furthest, "error": error}
    if not agrees:
        raise Refused(f"differs: {furthest} is off by {error:.2e} (allowed: {BASELINE:.0e})")


def check_again(contestant: Contestant) -> None:
    """After the timed rounds the results are still right.

    Raises:
        Refused: they are not.
    """
    first = contestant.record.values
    contestant.steps.feed(contestant.case.batches)
    check_values(contestant)
    contestant.record.values = {**first, "ratio_after": contestant.record.values.get("ratio")}


def _gap(found: Any, expected: Any) -> float:
    """The largest deviation relative to the largest magnitude; inf where shapes differ."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.max(np.abs(expected))) or 1.0
    gap = float(np.max(np.abs(found - expected))) / scale
    return gap if np.isfinite(gap) else float("inf")
