"""Checks of training steps, with a new batch and a different learning rate at each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.checking.checks.context import Batches, Context, Step, compare_repetition, select_names
from harness.oracle.case import Case, state_of, step_values
from harness.oracle.tolerance import PRECISION, prefixed
from harness.oracle.yardstick import Expected
from harness.program.serial import encoded
from harness.program.signature import nearest_sizes, result_ports
from harness.program.updates import UpdateRule
from harness.results.findings import Finding
from harness.runtime.answers import Misfit
from harness.runtime.session import Session

STEPS = 4
# Learning rate of gradient descent. It is not a power of two, so a backend that stores it in too
# few bits differs.
RATE = 0.06
# Training is stable if the relative rounding error of the median tensor is below this number.
STABLE = 2.0**-12
RATES_TRIED = 5


def own_optimizer(context: Context) -> Iterator[Finding]:
    """Compare training steps with the optimizer of the spec. In the second half of the steps, the
    learning rate is divided by 8.

    The check runs in float64 only: Adam divides each gradient by the gradient's size, which
    amplifies rounding errors.
    """
    update = context.case.spec.update
    if update is None or context.dtype != "float64":
        return
    yield _compare_steps(context, "training", update, update.attributes["learning_rate"])


def sgd(context: Context) -> Iterator[Finding]:
    """Compare training steps with plain gradient descent. Each parameter then changes by its
    gradient times the learning rate, so no division hides a wrong gradient, as it does in Adam."""
    yield _compare_steps(context, "training-sgd", context.case.spec.rule("sgd"), RATE)


def find_stable_rate(
    rate: float, dtype: str, expected: Callable[[float], Expected]
) -> tuple[float, Expected]:
    """Return the largest learning rate at which training is stable, and the expected results at
    this learning rate.

    The function tries ``rate`` first, then ``rate`` divided by 16, 256 and so on.
    ``expected(rate)`` computes the oracle's results. If training is not stable, it diverges, and
    results are only rounding errors after a few steps. The returned rate is a float32 number,
    because some frameworks store the learning rate in float32.
    """
    best: tuple[float, float, Expected] | None = None
    for power in range(RATES_TRIED):
        candidate = float(np.float32(rate / 16**power))
        result = expected(candidate)
        noise = result.noise(dtype)
        # Use the noise of the compared values only: it also shows training that diverges in its
        # last steps. A small step of a large parameter is mostly rounding as well.
        noise_values = [noise[name] for name in result.values]
        typical = median(noise_values) if all(map(np.isfinite, noise_values)) else np.inf
        if best is None or typical < best[0]:
            best = typical, candidate, result
        elif best[0] < np.inf:
            break
        if typical < STABLE * PRECISION[dtype]:
            break
    assert best is not None
    return best[1:]


def batches_of(case: Case, count: int, time: int | None = None) -> Batches:
    """Return a list of ``count`` batches; each is a dictionary with ``inputs`` and ``targets``. The
    first batch is the batch of the test case, unless ``time`` differs from its number of time
    steps."""
    time = time or case.time
    others = (case.batch_of(case.batch, time, n) for n in range(1, count))
    first = case.material if time == case.time else case.batch_of(case.batch, time, count)
    return [{"inputs": m.inputs, "targets": m.targets} for m in (first, *others)]


def plan_steps(case: Case, rule: UpdateRule, rate: float, dtype: str) -> tuple[Batches, Expected]:
    """Return two things: batches, each with a learning rate, and the oracle's results of training
    on these batches."""
    drawn = batches_of(case, STEPS)

    def batches_at(rate: float) -> Batches:
        rates = [rate if number < STEPS // 2 else rate / 8 for number in range(STEPS)]
        return [
            {**batch, "learning_rate": own_rate}
            for batch, own_rate in zip(drawn, rates, strict=True)
        ]

    rate, expected = find_stable_rate(
        rate, dtype, lambda rate: case.train(rule, batches_at(rate), case.material, rate)
    )
    return batches_at(rate), expected


def _compare_steps(context: Context, check: str, rule: UpdateRule, rate: float) -> Finding:
    material = context.case.material
    batches, expected = plan_steps(context.case, rule, rate, context.dtype)
    context.remote.call("use_rule", rule=encoded(rule))
    context.remote.load(material)
    finding = Finding(check)
    before: Arrays = {}
    state: Arrays = material.state
    for number, batch in enumerate(batches, start=1):
        # Use one call per step: a call with several steps would keep the parameters and slots of
        # all of them in memory.
        (step,) = context.remote.train([batch], state)
        state, values = state_of(step["results"]), step_values(number, step, material)
        expected_step = expected.only(f"step {number}: ")
        finding.deviations += context.finding(check, values, expected_step).deviations
        before = before or values
        if number == STEPS // 2:
            # A held-out pass between training steps must not change later steps.
            context.forward(material)
    _check_inference_after_training(context, finding, step)
    _check_reset(context, finding, batches[:1], before, expected.only("step 1: "))
    return finding


def _check_inference_after_training(context: Context, finding: Finding, step: Step) -> None:
    """Compare inference directly after training with inference after the trained parameters are
    loaded again: the results must be the same. ``step`` has the values after the last training
    step."""
    case, remote = context.case, context.remote
    trained = step["parameters"], step["statistics"]
    if any(isinstance(tensor, Misfit) for tensors in trained for tensor in tensors.values()):
        return  # already reported for the step, and cannot be loaded
    first = context.forward(case.material)
    reloaded = replace(case.material, parameters=trained[0], statistics=trained[1])
    remote.load(reloaded)
    fault = "{} after training differs from the result after reloading the same parameters"
    expected = partial(case.forward, "inference", case.material, "main")
    compare_repetition(context, finding, first, context.forward(case.material), expected, fault)


def _check_reset(
    context: Context,
    finding: Finding,
    batches: Batches,
    before: Arrays,
    expected: Expected,
) -> None:
    """Check that loading parameters resets everything that earlier steps changed: optimizer slots,
    step count and learning rate. ``before`` are the results of the earlier steps; the same steps
    must give them again."""
    material = context.case.material
    context.remote.load(material)
    (again,) = context.remote.train(batches, material.state)
    after = step_values(1, again, material)
    fault = "{} differs after loading again: the session keeps state from earlier steps"
    compare_repetition(context, finding, before, after, lambda: expected, fault)


# The next checks run steps as ``harness bench`` and ``harness train`` do: as a compiled plan with
# reused memory, and with several steps per call.

# The first half of the steps, one for each batch, runs in one call if the backend supports that. In
# the second half, the check reads the results of each step.
BATCHES, PIPELINE_STEPS = 2, 4
# The first FIRST_STEPS steps overwrite each of the batches that an executor keeps in memory. One
# more call then runs STEPS_PER_CALL further steps.
FIRST_STEPS, STEPS_PER_CALL = 16, 8
TOTAL_STEPS = FIRST_STEPS + STEPS_PER_CALL
# Time steps of these batches: few, because compiling is slow and unrolls the time steps. ``harness
# train`` itself checks its first training steps at the full sizes.
TIME = 2


def pipeline_forward(context: Context) -> Iterator[Finding]:
    """Compare forward passes that run in a pipeline (without returning results in between), and one
    pass of the plan that is compiled for speed. ``harness bench`` times this plan if it is the
    fastest way to run the model. ``harness train`` uses this plan to evaluate held-out data."""
    case = context.case
    _, time = nearest_sizes(case.inference, case.batch, min(case.time, TIME))
    batches = batches_of(case, BATCHES, time if case.given is None else case.time)
    results, _ = context.run_pipeline("forward", batches, None, 0.0)
    finding = context.finding(
        "pipeline-forward", _join_steps(results), _expect_forward(context, batches)
    )

    batch = replace(case.batch_of(case.batch, time), state=case.material.state)
    batches_of_one = [{"inputs": batch.inputs, "targets": batch.targets}]
    context.call_worker("prepare", batches_of_one, None, 0.0, path="derived", mode="forward")
    (results,) = context.remote.call("values", first=0, count=1)
    expected = case.forward("inference", batch, ("compiled for speed", time))
    ends = select_names(expected, _end_names(case))
    fast = context.finding(finding.check, results, ends).deviations
    finding.deviations += prefixed("compiled for speed, ", fast)
    yield finding


def pipeline(context: Context) -> Iterator[Finding]:
    """Compare training steps in a pipeline, i.e. without returning results in between. The steps
    use the spec's optimizer in float64, and gradient descent in other dtypes.

    Before these steps, the check runs steps with NaN in all parameters: the losses must be NaN, and
    no NaN may remain after a restart.
    """
    if context.case.spec.update is None:
        return
    batches, (rule, rate) = batches_of(context.case, BATCHES), _choose_rule(context)
    rate, expected = find_stable_rate(
        rate,
        context.dtype,
        lambda r: select_last(
            _expect_pipeline(context, batches, rule, r), BATCHES + 1, PIPELINE_STEPS
        ),
    )

    context.prepare("train", batches, rule, rate)
    finding = Finding("pipeline-training")
    if context.case.training.parameters:
        _check_nan_losses(context, finding, batches, rule, rate)
        context.remote.call("restart")
    results, after = context.run_twice(BATCHES)
    step = {"results": results[-1], **after}
    values = {**_join_steps(results), **step_values(PIPELINE_STEPS, step, context.case.material)}
    finding.deviations = context.finding(finding.check, values, expected).deviations
    yield finding


def _check_nan_losses(
    context: Context, finding: Finding, batches: Batches, rule: UpdateRule, rate: float
) -> None:
    """Run steps of the prepared pipeline with NaN in all parameters, and check that the losses are
    NaN. ``rate`` is the learning rate.

    The second loss is NaN only if the first step has kept the NaN in the parameters. The check
    ``nan`` tests NaN in a single parameter.
    """
    material = context.case.material
    parameters = {n: np.full_like(a, np.nan) for n, a in material.parameters.items()}
    context.remote.call("restart", parameters=parameters)
    results = _join_steps(context.remote.call("values", first=0, count=BATCHES), 1)
    steps = [{**batch, "learning_rate": rate} for batch in batches]
    nan_arguments = replace(material, parameters=parameters)
    expected = context.case.train(rule, steps, nan_arguments, ("a step of NaN", rate)).values
    for loss in (f"step {number}: loss" for number in range(1, BATCHES + 1)):
        finding.held += 1
        if np.isnan(expected[loss]) and not np.isnan(results.get(loss, 0.0)).all():
            finding.faults.append(f"{loss} is not NaN although all parameters were NaN")


def trained(context: Context) -> Iterator[Finding]:
    """Compare training steps that run as in ``harness train``: with the derived gradient, compiled
    for speed.

    As in that command, batches overwrite each other in memory, several steps run in one call, and
    the device sums the losses. The steps use the spec's optimizer in float64, and gradient descent
    in other dtypes.
    """
    case = context.case
    if case.spec.update is None:
        return
    _, time = nearest_sizes(case.training, case.batch, min(case.time, TIME))
    (rule, rate), batches = _choose_rule(context), batches_of(case, TOTAL_STEPS, time)

    def steps_at(rate: float) -> Expected:
        steps = [{**batch, "learning_rate": rate} for batch in batches]
        return sum_losses(case.train(rule, steps, case.material, ("trained", rate)))

    rate, expected = find_stable_rate(rate, context.dtype, steps_at)
    yield context.finding("trained", run_like_train(context, batches, rule, rate), expected)


def _choose_rule(context: Context) -> tuple[UpdateRule, float]:
    """Return the update rule of a check and its learning rate. The rule is the spec's optimizer in
    float64, otherwise gradient descent.

    An optimizer such as Adam divides gradients by gradients, which amplifies rounding errors. The
    errors stay small only in float64.
    """
    spec = context.case.spec
    if spec.update is None or context.dtype != "float64":
        return spec.rule("sgd"), RATE
    return spec.update, spec.update.attributes["learning_rate"]


def run_like_train(
    context: Context,
    batches: Batches,
    rule: UpdateRule,
    rate: float,
    starts: Sequence[int] = (),
) -> ArrayDict:
    """Run :data:`TOTAL_STEPS` training steps as ``harness train`` does, and return the values after
    the last step, with names such as ``step 24: out.W moved``.

    For each step count in ``starts``, also run :data:`STEPS_PER_CALL` steps whose step count starts
    there, and return the values after the last of these steps.
    """
    results = context.call_worker(
        "descend", batches, rule, rate, many=STEPS_PER_CALL, starts=list(starts)
    )
    values: ArrayDict = {"sum of losses": np.asarray(results["total"], context.float_dtype)}
    results_by_step = {
        TOTAL_STEPS: results,
        **{n + STEPS_PER_CALL: f for n, f in zip(starts, results["later"], strict=True)},
    }
    for number, end_values in results_by_step.items():
        values |= step_values(number, {"results": {}, **end_values}, context.case.material)
    return values


def sum_losses(expected: Expected) -> Expected:
    """Return the values expected after :data:`TOTAL_STEPS` steps. The losses of single steps are
    replaced by their sum, because ``harness train`` reads only the sum."""
    losses = [f"step {n}: loss" for n in range(1, TOTAL_STEPS + 1)]
    values = {n: a for n, a in expected.values.items() if n.startswith(f"step {TOTAL_STEPS}: ")}
    values.pop(losses[-1])
    values["sum of losses"] = np.asarray(sum(expected.values[n] for n in losses))

    def measured(dtype: str) -> dict[str, float]:
        noise = dict(expected.measured(dtype))
        return noise | {"sum of losses": max(noise[n] for n in losses)}

    return Expected(values, measured)


def _expect_pipeline(context: Context, batches: Batches, rule: UpdateRule, rate: float) -> Expected:
    steps = [{**batches[i % BATCHES], "learning_rate": rate} for i in range(PIPELINE_STEPS)]
    return context.case.train(rule, steps, context.case.material, ("pipeline", rate))


def _end_names(case: Case) -> list[str]:
    """Return the names of the outputs that a pipeline of forward passes (without results in
    between) returns."""
    return [n for n in result_ports(case.inference, "ends") if n.startswith("output.")]


def _expect_forward(context: Context, batches: Batches) -> Expected:
    """Return the outputs that a pipeline of forward passes must return in the second half of its
    steps, in which each batch is used for the second time. Each step starts from the state that the
    previous step returned."""
    material, names = context.case.material, _end_names(context.case)

    def run(session: Session) -> Arrays:
        session.load(material.parameters, material.statistics)
        state: Arrays = material.state
        results = []
        for number in range(PIPELINE_STEPS):
            step_results = session.forward("inference", batches[number % BATCHES]["inputs"], state)
            state = state_of(step_results)
            results.append({n: step_results[n] for n in names})
        return _join_steps(results[BATCHES:])

    return context.case.expect("pipeline-forward", run)


def _join_steps(results: Batches, first: int = BATCHES + 1) -> ArrayDict:
    """Return the results of successive steps as one dictionary, with names such as ``step 3:
    loss``. ``first`` is the number of the first step."""
    return {f"step {first + i}: {n}": a for i, r in enumerate(results) for n, a in r.items()}


def select_last(expected: Expected, first: int, last: int) -> Expected:
    """Return only the losses of steps ``first`` to ``last``, and all values of step ``last``."""
    names = {*expected.only(f"step {last}: ").values}
    # The names are exact: the values of a layer "loss_head" start with "step 3: loss", too.
    return select_names(expected, names | {f"step {n}: loss" for n in range(first, last + 1)})
