"""Checks of optimizer steps, with a new batch at each step and a learning rate that changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.checking.checks.context import Batches, Context, Step, hold_again
from harness.oracle.case import Case, state_of, step_values
from harness.oracle.tolerance import PRECISION, prefixed
from harness.oracle.yardstick import Expected
from harness.program.signature import nearest_sizes, result_ports
from harness.program.updates import UpdateRule
from harness.results.findings import Finding
from harness.runtime.answers import Misfit
from harness.runtime.session import Session

STEPS = 4
# Learning rate of gradient descent. Not a power of two, so that a rate kept in too few bits
# differs.
RATE = 0.06
# A trajectory is stable if rounding changes its typical tensor by less than this.
STABLE = 2.0**-12
RATES_TRIED = 5


def own_optimizer(context: Context) -> Iterator[Finding]:
    """Train with the spec's own optimizer; its learning rate is divided by 8 half way. In float64
    only: Adam divides a gradient by its own size, rounding errors included."""
    update = context.case.spec.update
    if update is None or context.dtype != "float64":
        return
    yield _train(context, "training", update, update.attributes["learning_rate"])


def sgd(context: Context) -> Iterator[Finding]:
    """Train with gradient descent: parameters move by the gradient; no quotient hides an error."""
    yield _train(context, "training-sgd", context.case.spec.rule("sgd"), RATE)


def stable(
    rate: float, dtype: str, expected: Callable[[float], Expected]
) -> tuple[float, Expected]:
    """Return the rate, or the rate over a power of 16, with which training is stable, and the
    result.

    If training diverges, only rounding is left after a few steps. The rate is a float32 number, so
    that frameworks that keep it in float32 have the same rate.
    """
    best: tuple[float, float, Expected] | None = None
    for smaller in range(RATES_TRIED):
        tried = float(np.float32(rate / 16**smaller))
        found = expected(tried)
        noise = found.noise(dtype)
        # The noise of the compared values alone shows a trajectory that diverges in its last steps.
        # Beside a large parameter a small step is mostly rounding, too.
        compared = [noise[name] for name in found.values]
        typical = median(compared) if all(map(np.isfinite, compared)) else np.inf
        if best is None or typical < best[0]:
            best = typical, tried, found
        elif best[0] < np.inf:
            break
        if typical < STABLE * PRECISION[dtype]:
            break
    assert best is not None
    return best[1:]


def batches_of(case: Case, count: int, time: int | None = None) -> Batches:
    """Return the ``inputs`` and ``targets`` of batches; the case's own first, if ``time`` fits."""
    time = time or case.time
    others = (case.batch_of(case.batch, time, n) for n in range(1, count))
    first = case.material if time == case.time else case.batch_of(case.batch, time, count)
    return [{"inputs": m.inputs, "targets": m.targets} for m in (first, *others)]


def planned(case: Case, rule: UpdateRule, rate: float, dtype: str) -> tuple[Batches, Expected]:
    """Return the batches of the steps with their learning rates, and the oracle's results."""
    drawn = batches_of(case, STEPS)

    def batches_at(rate: float) -> Batches:
        rates = [rate if number < STEPS // 2 else rate / 8 for number in range(STEPS)]
        return [{**batch, "learning_rate": own} for batch, own in zip(drawn, rates, strict=True)]

    rate, expected = stable(
        rate, dtype, lambda rate: case.train(rule, batches_at(rate), case.material, rate)
    )
    return batches_at(rate), expected


def _train(context: Context, check: str, rule: UpdateRule, rate: float) -> Finding:
    material = context.case.material
    batches, expected = planned(context.case, rule, rate, context.dtype)
    context.remote.use_rule(rule)
    context.remote.load(material)
    finding = Finding(check)
    before: Arrays = {}
    state: Arrays = material.state
    for number, given in enumerate(batches, start=1):
        # One call per step: several would hold the parameters and slots of all steps at once.
        (step,) = context.remote.train([given], state)
        state, found = state_of(step["results"]), step_values(number, step, material)
        expected_now = expected.only(f"step {number}: ")
        finding.deviations += context.finding(check, found, expected_now).deviations
        before = before or found
        if number == STEPS // 2:
            # A held-out pass between steps must leave nothing behind.
            context.forward(material)
    _hold_inference(context, finding, step)
    _hold_fresh(context, finding, batches[:1], before, expected.only("step 1: "))
    return finding


def _hold_inference(context: Context, finding: Finding, step: Step) -> None:
    """Check that inference after training equals inference with the trained parameters loaded."""
    case, remote = context.case, context.remote
    held = step["parameters"], step["statistics"]
    if any(isinstance(tensor, Misfit) for tensors in held for tensor in tensors.values()):
        return  # reported for the step itself, and cannot be loaded
    first = context.forward(case.material)
    made = replace(case.material, parameters=held[0], statistics=held[1])
    remote.load(made)
    fault = "{} after training is another than from the same parameters where they are loaded"
    expected = partial(case.forward, "inference", case.material, "main")
    hold_again(context, finding, first, context.forward(case.material), expected, fault)


def _hold_fresh(
    context: Context,
    finding: Finding,
    batches: Batches,
    before: Arrays,
    expected: Expected,
) -> None:
    """Check that loading resets everything from earlier steps: slots, step count, learning rate."""
    material = context.case.material
    context.remote.load(material)
    (again,) = context.remote.train(batches, material.state)
    after = step_values(1, again, material)
    fault = "{} is another after loading anew: something was kept from earlier steps"
    hold_again(context, finding, before, after, lambda: expected, fault)


# Timed steps: planned, compiled, with reused memory, several steps in one call.

# Half of the steps run in a row, as many as there are batches: in one call if the backend can. The
# results of the other half are read one by one.
BATCHES, PIPELINE_STEPS = 2, 4
# Steps of a training: as many as the batches that an executor keeps side by side, which are all
# overwritten; the steps of one call; and the total with one more call, which continues from the
# first ones.
TRAINED, TOGETHER = 16, 8
MADE = TRAINED + TOGETHER
# Time steps of these batches: compilation for speed is slow and unrolls the time steps.
# ``harness train`` proves its first steps at its own sizes.
TIME = 2


def pipeline_forward(context: Context) -> Iterator[Finding]:
    """Compare forward passes of a pipeline, and one pass of the plan compiled for speed.

    ``harness bench`` times that plan if it is the fastest way; ``harness train`` tests held-out
    data with it.
    """
    case = context.case
    _, time = nearest_sizes(case.inference, case.batch, min(case.time, TIME))
    batches = batches_of(case, BATCHES, time if case.given is None else case.time)
    found, _ = context.timed("forward", batches, None, 0.0)
    finding = context.finding("pipeline-forward", _named(found), _forward(context, batches))

    batch = replace(case.batch_of(case.batch, time), state=case.material.state)
    asked = [{"inputs": batch.inputs, "targets": batch.targets}]
    context.steps("prepare", asked, None, 0.0, path="derived", mode="forward")
    (results,) = context.remote.call("values", first=0, count=1)
    expected = case.forward("inference", batch, ("compiled for speed", time))
    ends = replace(expected, values={n: expected.values[n] for n in _ends(case)})
    fast = context.finding(finding.check, results, ends).deviations
    finding.deviations += prefixed("compiled for speed, ", fast)
    yield finding


def pipeline(context: Context) -> Iterator[Finding]:
    """Compare training steps of a pipeline, after steps with NaN parameters.

    The NaN must reach the losses and leave nothing behind. In float64 the spec's own optimizer
    runs, in other dtypes gradient descent.
    """
    if context.case.spec.update is None:
        return
    batches, (rule, rate) = batches_of(context.case, BATCHES), _rule(context)
    rate, expected = stable(
        rate, context.dtype, lambda r: _last(_pipeline_expected(context, batches, rule, r))
    )

    context.prepare("train", batches, rule, rate)
    finding = Finding("pipeline-training")
    if context.case.training.parameters:
        _hold_nan(context, finding, batches, rule, rate)
        context.remote.call("restart")
    found, after = context.run_twice(BATCHES)
    step = {"results": found[-1], **after}
    values = {**_named(found), **step_values(PIPELINE_STEPS, step, context.case.material)}
    finding.deviations = context.finding(finding.check, values, expected).deviations
    yield finding


def _hold_nan(
    context: Context, finding: Finding, batches: Batches, rule: UpdateRule, rate: float
) -> None:
    """Run steps of the prepared pipeline with NaN in all parameters; the losses must be NaN. A
    kernel may lose the NaN of a single parameter, which the check ``nan`` covers. The second loss
    shows what the first step has made of the parameters."""
    material = context.case.material
    parameters = {n: np.full_like(a, np.nan) for n, a in material.parameters.items()}
    context.remote.call("restart", parameters=parameters)
    found = _named(context.remote.call("values", first=0, count=BATCHES), 1)
    steps = [{**batch, "learning_rate": rate} for batch in batches]
    given = replace(material, parameters=parameters)
    expected = context.case.train(rule, steps, given, ("a step of NaN", rate)).values
    for loss in (f"step {number}: loss" for number in range(1, BATCHES + 1)):
        finding.held += 1
        if np.isnan(expected[loss]) and not np.isnan(found.get(loss, 0.0)).all():
            finding.faults.append(f"{loss} is a number, where all parameters were NaN")


def trained(context: Context) -> Iterator[Finding]:
    """Compare steps as ``harness train`` runs them: the derived gradient, compiled for speed.

    Batches overwrite each other, several steps run in one call, and the device sums the losses. In
    float64 the spec's own optimizer runs, in other dtypes gradient descent.
    """
    case = context.case
    if case.spec.update is None:
        return
    _, time = nearest_sizes(case.training, case.batch, min(case.time, TIME))
    (rule, rate), batches = _rule(context), batches_of(case, MADE, time)

    def steps_at(rate: float) -> Expected:
        steps = [{**batch, "learning_rate": rate} for batch in batches]
        return summed(case.train(rule, steps, case.material, ("trained", rate)))

    rate, expected = stable(rate, context.dtype, steps_at)
    yield context.finding("trained", descended(context, batches, rule, rate), expected)


def _rule(context: Context) -> tuple[UpdateRule, float]:
    """Return the rule and learning rate: the spec's own in float64, otherwise gradient descent. An
    optimizer divides gradients by each other; only in float64 is rounding small beside them."""
    spec = context.case.spec
    if spec.update is None or context.dtype != "float64":
        return spec.rule("sgd"), RATE
    return spec.update, spec.update.attributes["learning_rate"]


def descended(
    context: Context,
    batches: Batches,
    rule: UpdateRule,
    rate: float,
    starts: Sequence[int] = (),
) -> ArrayDict:
    """Return the results of :data:`MADE` steps, run as ``harness train`` runs them. For each of
    ``starts``, also the results of :data:`TOGETHER` steps that continue from that step count."""
    found = context.steps("descend", batches, rule, rate, many=TOGETHER, starts=list(starts))
    values: ArrayDict = {"sum of losses": np.asarray(found["total"], context.kept)}
    made = {MADE: found, **{n + TOGETHER: f for n, f in zip(starts, found["later"], strict=True)}}
    for number, left in made.items():
        values |= step_values(number, {"results": {}, **left}, context.case.material)
    return values


def summed(expected: Expected) -> Expected:
    """Return the expected values after :data:`MADE` steps; the losses are replaced by their sum."""
    losses = [f"step {n}: loss" for n in range(1, MADE + 1)]
    values = {n: a for n, a in expected.values.items() if n.startswith(f"step {MADE}: ")}
    values.pop(losses[-1])
    values["sum of losses"] = np.asarray(sum(expected.values[n] for n in losses))

    def measured(dtype: str) -> dict[str, float]:
        noise = dict(expected.measured(dtype))
        return noise | {"sum of losses": max(noise[n] for n in losses)}

    return Expected(values, measured)


def _pipeline_expected(
    context: Context, batches: Batches, rule: UpdateRule, rate: float
) -> Expected:
    steps = [{**batches[i % BATCHES], "learning_rate": rate} for i in range(PIPELINE_STEPS)]
    return context.case.train(rule, steps, context.case.material, ("pipeline", rate))


def _ends(case: Case) -> list[str]:
    """Return the names of the outputs that a forward pipeline returns."""
    return [n for n in result_ports(case.inference, "ends") if n.startswith("output.")]


def _forward(context: Context, batches: Batches) -> Expected:
    """Return the outputs of the last steps; each step starts from the state of the one before."""
    material, wanted = context.case.material, _ends(context.case)

    def run(session: Session) -> Arrays:
        session.load(material.parameters, material.statistics)
        state: Arrays = material.state
        results = []
        for number in range(PIPELINE_STEPS):
            found = session.forward("inference", batches[number % BATCHES]["inputs"], state)
            state = state_of(found)
            results.append({n: found[n] for n in wanted})
        return _named(results[BATCHES:])

    return context.case.expect("pipeline-forward", run)


def _named(results: Batches, first: int = BATCHES + 1) -> ArrayDict:
    """Return the results of successive steps in one dictionary; the first is step ``first``."""
    return {f"step {first + i}: {n}": a for i, r in enumerate(results) for n, a in r.items()}


def _last(expected: Expected) -> Expected:
    """Return the losses of the second half of the steps, and all values of the last step."""
    losses = {f"step {n}: loss" for n in range(BATCHES + 1, PIPELINE_STEPS + 1)}
    values = {
        n: a
        for n, a in expected.values.items()
        if n in losses or n.startswith(f"step {PIPELINE_STEPS}: ")
    }
    return replace(expected, values=values)
