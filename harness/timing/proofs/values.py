"""Proofs that use values: the timed steps must give the same results as the oracle, and as the same
steps run one at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.oracle.case import step_values
from harness.oracle.rounding import perturbed
from harness.oracle.tolerance import Deviation, K, digits, worst
from harness.oracle.yardstick import Expected, noise_between
from harness.timing.contestant import Contestant, Refused, TimedRound
from harness.timing.workload import ROTATING, SECRET, StepValues, TimedCase, kind

# Proof that steps in a row end with the same values as the same steps run singly.
#
# The results of timed steps are not read, so a backend could compute less. This proof runs the same
# steps again one at a time. It compares all values that pass from step to step, and the results of
# some steps, chosen afterwards. The harness draws the lengths, the batches and the last digits of
# the parameters, so no worker knows which steps will be compared.

# The steps of the longest repeated run: as many as fit in SECONDS, but at least LEAST and at most
# STEPS.
LEAST, STEPS, SECONDS = 6, 24, 0.04
# The number of further short runs by mode. In a forward pass no values pass from step to step, so a
# run verifies only one step.
FURTHER = {"train": 1, "forward": 4}
# The error of a whole round (hundreds of steps) that is accepted without measuring the rounding
# error.
ROUND = 0.02
# The first reading of a round's values may take this much longer than the second reading: a share
# of the round, or seconds.
LEFT, LEFT_SECONDS = 0.2, 0.02


@dataclass(frozen=True)
class Run:
    """An untimed run of steps from the initial values: its number of steps (``length``), and the
    index of the step whose results are read (``read``)."""

    length: int
    read: int


def check_timed_way(contestant: Contestant) -> None:
    """Check that steps without a wait between them, as in the timing, give the same results as the
    same steps run one at a time.

    The check uses some untimed runs of steps. The tolerance is 16 times the rounding error. To
    measure the rounding error, the same steps run again from parameters that differ in their last
    digits.

    Raises:
        Refused: the results differ.
    """
    case, steps = contestant.case, contestant.steps
    steps.feed(case.make_unseen_batches())
    start = _perturb_parameters(contestant)
    runs = sorted(_draw_runs(contestant), key=lambda run: run.length)
    values: ArrayDict = {}
    for run in runs:
        steps.restart(start)
        steps.throughput(0, run.length)
        values |= _name_results(run.read, steps.last(run.length - 1 - run.read))
    values |= _read_carried_values(contestant, runs[-1].length, start)
    calls, reads = [(0, runs[-1].length)], {run.read for run in runs}
    expected = _run_singly(contestant, calls, reads, start, until=1)
    noise: Mapping[str, float] = {}
    deviations = case.compare(values, Expected.within(expected, noise, case.dtype))
    if not all(d.agrees for d in deviations):
        again = _run_singly(contestant, calls, reads, _perturb_parameters(contestant), until=1)
        noise = noise_between(expected, again, kind)
        deviations = case.compare(values, Expected.within(expected, noise, case.dtype))
    furthest = worst(deviations)
    contestant.record.timed_way = {
        "steps": runs[-1].length,
        "runs": len(runs),
        "compared": len(deviations),
        **_deviation_fields(furthest),
    }
    if not furthest.agrees:
        raise Refused(_refusal_text(runs[-1].length, furthest))


def check_rounds(contestant: Contestant) -> None:
    """Run the steps of one timed round again, one at a time, and compare the results with the
    results of the round. Also do so for the short rounds of the pace proof.

    The results must be equal within rounding. The harness chooses the round at random, so a backend
    cannot know it. In forward passes of models without state, every round is compared instead, but
    only the results that were read when a clock stopped.

    Raises:
        Refused: the results differ, or the backend did part of the round's work only when the
            results were read.
    """
    played = [p for p in contestant.timed_rounds if p.drawn or not contestant.carries]
    furthest: Deviation | None = None
    for one in played:
        deviation = _compare_with_single_steps(contestant, one)
        furthest = worst([deviation, furthest]) if furthest else deviation
        measurements = {"rounds": len(played), "steps": one.steps, **_deviation_fields(furthest)}
        contestant.record.rounds_again = measurements
        if not furthest.agrees:
            raise Refused(_refusal_text(one.steps, furthest))
        allowed = max(LEFT * one.seconds, LEFT_SECONDS)
        first, again = one.reading or (0.0, 0.0)
        if first - again > allowed:
            raise Refused(
                f"leaves work for later: after a round of {one.seconds:.3g} s, reading its values "
                f"takes {first:.3g} s, but {again:.3g} s the second time"
            )


def _compare_with_single_steps(contestant: Contestant, played: TimedRound) -> Deviation:
    """Run the steps of the round ``played`` one at a time; return the largest deviation of the
    round's values from the values of these steps."""
    case, steps = contestant.case, contestant.steps
    steps.feed(played.batches)
    found: ArrayDict = {}
    for read, results in played.reads.items():
        found |= _name_results(read, results)
    if not contestant.carries:
        steps.restart()
        expected: ArrayDict = {}
        for read in played.reads:
            expected |= _name_results(read, steps.values(read, 1)[0])
        # Outputs of single steps are as noisy as the outputs that the oracle computed.
        noise = dict.fromkeys(expected, max(case.expected.noise(case.dtype).values()))
        return worst(case.compare(found, Expected.within(expected, noise, case.dtype)))
    start, until = case.material.parameters, played.until if played.parameters else 0
    if until:
        count = sum(count for _, count in played.calls[:until])
        found |= _carried_values(contestant, count, played.parameters, start)
    expected = _run_singly(contestant, played.calls, played.reads, start, until)
    noise = dict.fromkeys(expected, ROUND / K)
    furthest = worst(case.compare(found, Expected.within(expected, noise, case.dtype)))
    if furthest.agrees:
        return furthest
    shaken_start = _perturb_parameters(contestant)
    again = _run_singly(contestant, played.calls, played.reads, shaken_start, until)
    rounding = noise_between(expected, again, kind)
    noise = {n: max(rounding[n], share) for n, share in noise.items()}
    return worst(case.compare(found, Expected.within(expected, noise, case.dtype)))


def _run_singly(
    contestant: Contestant,
    calls: Sequence[tuple[int, int]],
    reads: Collection[int],
    start: ArrayDict,
    until: int,
) -> ArrayDict:
    """Run the steps of some calls one at a time, starting with the parameters ``start``.

    Each call is a pair: the index of its first step, and its number of steps. Return the results of
    the steps whose index is in ``reads``. Unless ``until`` is 0, also return the values that steps
    pass on (e.g. parameters), as they are after the first ``until`` calls.
    """
    steps, total = contestant.steps, 0
    steps.restart(start)
    values: ArrayDict = {}
    for number, (first, count) in enumerate(calls, start=1):
        done = first
        for read in sorted(r for r in reads if first <= r < first + count):
            steps.latency(done, read - done)
            values |= _name_results(read, steps.values(read, 1)[0])
            done = read + 1
        steps.latency(done, first + count - done)
        total += count
        if number == until:
            values |= _read_carried_values(contestant, total, start)
    return values


def _draw_runs(contestant: Contestant) -> Collection[Run]:
    """Return one long run and some short runs of steps. In each run, the step whose results are
    read is chosen at random, so a backend cannot know it."""
    many, further = contestant.many, FURTHER[contestant.case.group.mode]
    most = max(LEAST, min(STEPS, contestant.steps_in(SECONDS)))
    lengths = [2 + SECRET.randrange(LEAST) for _ in range(further)]
    lengths.append(most + SECRET.randrange(LEAST))
    whole = [-(-length // many) * many for length in lengths]
    runs = [Run(length, length - 1 - SECRET.randrange(many)) for length in whole]
    return {run.read: run for run in runs}.values()


def _read_carried_values(contestant: Contestant, count: int, start: ArrayDict) -> ArrayDict:
    return _carried_values(contestant, count, contestant.steps.parameters(), start)


def _carried_values(
    contestant: Contestant, count: int, left: StepValues, start: ArrayDict
) -> ArrayDict:
    """Return a dictionary with the values that a step passes on to the next step. A key begins with
    the step, e.g. "step 3: ".

    ``left`` has the values after ``count`` steps. A parameter is returned as its difference from
    its value in ``start``.
    """
    material = replace(contestant.case.material, parameters=start)
    found = step_values(count, {"results": {}, **left}, material)
    return found | {f"step {count}: {n}": a for n, a in left["others"].items()}


def _name_results(index: int, results: Mapping[str, Array]) -> ArrayDict:
    return {f"step {index + 1}: {n}": a for n, a in results.items()}


def _perturb_parameters(contestant: Contestant) -> ArrayDict:
    """Return the initial parameters, changed in their last digits by secret random amounts. The
    backend can therefore not have computed the results before."""
    random = np.random.default_rng(SECRET.getrandbits(64))
    return perturbed(contestant.case.material.parameters, contestant.case.dtype, random)


def _deviation_fields(furthest: Deviation) -> dict[str, object]:
    return {"worst": furthest.name, "error": furthest.error, "allowed": furthest.tolerance}


def _refusal_text(steps: int, furthest: Deviation) -> str:
    what = furthest.reason or f"is off by {furthest.error:.2e} (allowed: {furthest.tolerance:.2e})"
    return (
        f"differs: after {steps} timed steps, {furthest.name} {what} "
        "compared with the same steps run one at a time"
    )


# Proof that a round was correct: one of its steps, drawn afterwards, agrees with the oracle.
#
# A backend knows the first steps. It could be correct on the first batches and later consistently
# do nothing. So the harness draws the batches of a round, and the step that is compared.


def check_step(contestant: Contestant) -> None:
    """Check that one randomly chosen step of a timed round agrees with the oracle.

    The oracle starts from the values that the worker had before this step.

    Raises:
        Refused: the step does not agree.
    """
    played = [p for p in contestant.timed_rounds if p.drawn or not contestant.carries]
    if not played:
        return
    one = SECRET.choice(played)
    again = _repeat_to_step if contestant.carries else _choose_read_step
    number, index, left, found = again(contestant, one)
    expected = contestant.case.expect_step(number, one.batches[index % ROTATING], left)
    deviations = _compare_step(contestant, expected, found)
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


def _compare_step(contestant: Contestant, expected: Expected, found: Arrays) -> list[Deviation]:
    """Compare a step's results with the oracle. First use tolerances from the rounding errors of
    the first steps, which are already known.

    If the step does not agree, measure the rounding errors of this step, and compare again.
    """
    case = contestant.case
    known: dict[str, float] = {}
    for name, error in case.expected.noise(case.dtype).items():
        of = name.partition(": ")[2]
        known[of] = max(error, known.get(of, 0.0))
    noise = {name: known.get(name.partition(": ")[2], 0.0) for name in expected.values}
    quick = case.compare(found, Expected.within(expected.values, noise, case.dtype))
    return quick if all(d.agrees for d in quick) else case.compare(found, expected)


# The number of a step, its index, the values before it, and its results.
RepeatedStep = tuple[int, int, StepValues, Arrays]


def _choose_read_step(contestant: Contestant, played: TimedRound) -> RepeatedStep:
    material, (index, results) = contestant.case.material, SECRET.choice([*played.reads.items()])
    left: StepValues = {
        "parameters": material.parameters,
        "statistics": material.statistics,
        "others": {},
    }
    return index + 1, index, left, contestant.case.rename_results([results], {}, index + 1)


def _repeat_to_step(contestant: Contestant, played: TimedRound) -> RepeatedStep:
    """Run the steps of the round ``played`` again up to a randomly chosen step. Return the step's
    number (from 1), its index, the values before it, and its results."""
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
    after: StepValues = steps.parameters() if train else {}
    found = contestant.case.rename_results(results, after, number, left["parameters"])
    return number, first + before, left, found


# The allowed error of a baseline's losses and outputs: larger, as its optimizer may differ.
BASELINE = 1e-3

Values = Sequence[Arrays]


def check_values(contestant: Contestant) -> None:
    """Raise :class:`Refused` if the results of the first steps, which the oracle has computed in
    advance, do not agree with the oracle."""
    results, after = compared_steps(contestant)
    case = contestant.case
    found = case.rename_results(results, after)
    if contestant.entry.baseline:
        _check_baseline(contestant, found)
        return
    deviations = case.compare(found)
    comparable = [d for d in deviations if not d.void]
    if not comparable:
        raise Refused(
            f"cannot be verified: in {case.dtype} every result of its steps is "
            "lost in rounding, or not finite"
        )
    furthest = worst(deviations)
    contestant.record.values = {
        "compared": len(comparable),
        "worst": furthest.name,
        "error": furthest.error,
        "ratio": furthest.ratio,
        "digits": count_correct_digits(case, deviations),
        "agrees": all(d.agrees for d in deviations),
    }
    wrong = [d for d in deviations if not d.agrees]
    if wrong:
        more = f", and {len(wrong) - 1} more of {len(deviations)} tensors" if wrong[1:] else ""
        raise Refused(f"differs: {furthest}{more}")


def count_correct_digits(case: TimedCase, deviations: Sequence[Deviation]) -> float | None:
    """Return the number of correct decimal digits of the worst tensor, compared with the oracle.

    Return None if every tensor consists of rounding errors.
    """
    tells = case.expected.shows_agreement
    errors = [d.error for d in deviations if not d.void and tells(d.name, case.dtype)]
    return digits(max(errors)) if errors else None


def compared_steps(contestant: Contestant) -> tuple[Values, StepValues]:
    """Run the steps that the oracle has computed. Return the results of each step, and in training
    the parameters after them."""
    contestant.steps.restart()
    results: list[Arrays] = []
    for index in contestant.case.compared:
        results += contestant.steps.values(index, 1)
    train = contestant.case.group.mode == "train" and not contestant.entry.baseline
    return results, contestant.steps.parameters() if train else {}


def _check_baseline(contestant: Contestant, found: Arrays) -> None:
    expected = contestant.case.expected.values
    errors = {n: _relative_error(a, expected[n]) for n, a in found.items() if n in expected}
    if not errors:
        raise Refused("differs: nothing was compared")
    furthest = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    error = errors[furthest]
    agrees = error <= BASELINE
    contestant.record.values = {"compared": len(errors), "worst": furthest, "error": error}
    if not agrees:
        raise Refused(f"differs: {furthest} is off by {error:.2e} (allowed: {BASELINE:.0e})")


def check_again(contestant: Contestant) -> None:
    """Compare the first steps with the oracle once more, after the timed rounds.

    Raises:
        Refused: the results differ.
    """
    first = contestant.record.values
    contestant.steps.feed(contestant.case.batches)
    check_values(contestant)
    contestant.record.values = {**first, "ratio_after": contestant.record.values.get("ratio")}


def _relative_error(found: Any, expected: Any) -> float:
    """Return the largest absolute difference divided by the largest absolute expected value;
    infinity if the shapes differ."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.max(np.abs(expected))) or 1.0
    gap = float(np.max(np.abs(found - expected))) / scale
    return gap if np.isfinite(gap) else float("inf")
