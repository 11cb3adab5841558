"""Checks of faults that appear late: after many optimizer steps, or after many batches that each
start from the state of the previous batch.

Four steps do not show a bias correction that is wrong from step 11 on, or an update that is skipped
in every fifth step. A hundred steps of a network are slow. Therefore the optimizer trains
``probe/steps``, a small model whose gradients the check chooses. With given gradients, rounding
errors do not grow from step to step, so the spec's own optimizer can be compared in float32 too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.checking.checks.context import (
    Batch,
    Batches,
    Context,
    make_probe_case,
    run_once_per_worker,
    select_names,
)
from harness.checking.checks.training import (
    STEPS_PER_CALL,
    TOTAL_STEPS,
    run_like_train,
    select_last,
    sum_losses,
)
from harness.oracle.case import Case, state_of, step_values
from harness.oracle.draw import draw, single
from harness.oracle.tolerance import PRECISION, Deviation, compare, prefixed
from harness.oracle.yardstick import Expected
from harness.program.ir import Program, walk_nodes
from harness.program.serial import digest
from harness.program.updates import UpdateRule, by_parameter
from harness.results.findings import Finding
from harness.runtime.answers import Arguments, check_all_arrays
from harness.runtime.precision import PRODUCTS
from harness.runtime.session import Session

BATCH = 2
# Numbers of batches; each batch is used twice. MANY is for optimizers with slots: the last step
# number exceeds 127, the largest signed byte. MORE is for narrow dtypes: the last step number
# exceeds 256, above which bfloat16 cannot count. FEW is for optimizers without slots.
MANY, MORE, FEW = 66, 134, 12
# The numbers of the steps that are compared: the first steps, and steps around numbers at which a
# bias correction might change.
COMPARED = (1, 2, 3, 5, 6, 10, 11, 12, 20, 50, 100, 126, 127, 128, 129, 132)
COMPARED_LATER = (256, 257, 258, 260, 268)
# Learning rate: not a power of two, half-way between two float16 numbers, and exact in float32, in
# which Keras stores it.
RATE = 2.0**-10 * (1 + 2.0**-2 + 2.0**-11)
# Learning rate of the step that follows all steps with RATE. After it comes a step with rate 0, as
# at the end of a learning-rate schedule.
SLOWER = RATE / 128
# Step counts with which further steps start: after a warm-up, and at the end of a schedule.
STARTS = (1000, 5000)
# The smallest noise to assume in float32: ``1 - 0.999`` loses ten bits, so the first steps of Adam
# have an error of this size.
NOISE = 2.0**-19
LOSSES = "losses"
# The size of each entry of a gradient; the last entry is always 0.
SIZES = np.array([1, 1, 2.0**-20, 0.1, 2, 0.01, 4, 0])
# Step numbers, counted from 0. In the steps ZERO_STEPS, the gradient of an entry is 0, but not in
# the steps before. Step REPEATED_STEP repeats the gradients of the previous step.
ZERO_STEPS, REPEATED_STEP = slice(3, 6), 7
# In one later step, gradients are multiplied by LARGE. None of them is 0, because XLA flushes the
# small average of an entry with gradient 0 to 0. In the last step, the entry NAN_ENTRY is NaN, and
# the updates of all other entries must be right.
LARGE = 2.0**20
NAN_ENTRY = 5
# Offsets that make parameters unusually large: an optimizer must not clip parameters. In narrow
# dtypes the offsets are divided, so that float16 can hold them.
LARGE_OFFSETS = np.array([30, -300, 3e3, -3e4, 3e5, -3e6, 100, -10])
# A state passes through CARRIED_BATCHES batches. The check compares the results of the batches with
# the numbers COMPARED_BATCHES.
CARRIED_BATCHES, COMPARED_BATCHES = 20, (6, 7, 13, 16, 20)


def optimizer_steps(context: Context) -> Iterator[Finding]:
    """Compare many steps of the spec's optimizer, run in three ways:

    - one by one,
    - in a pipeline, i.e. without returning results in between,
    - as in ``harness train``, also starting from large step counts.

    If the same command also makes this check in float32, a float64 cell runs fewer steps.
    """
    rule = context.case.spec.update
    if rule is None:
        return
    # Replace the optimizer's learning rate: each step below has a learning rate of its own.
    rule = replace(rule, attributes={**rule.attributes, "learning_rate": RATE})
    rule = _assign_groups(rule)
    key = ("optimizer-steps", digest(rule))
    finding = Finding("optimizer-steps")
    finding.deviations = list(
        run_once_per_worker(context, key, lambda: _optimizer_steps(context, rule))
    )
    yield finding


def _optimizer_steps(context: Context, rule: UpdateRule) -> list[Deviation]:
    """Run the steps in new sessions in the three ways of :func:`optimizer_steps`. Return all
    deviations.

    In narrow dtypes (e.g. bfloat16), gradients are exact and updates are compared in float32. So
    the backend must keep parameters, slots and the step number in float32.
    """
    case, remote = _make_case(), context.remote
    steps, alone = _make_batches(context, rule)
    broken = f"step {len(alone)}: " if np.isnan(alone[-1]["inputs"]["x"]).any() else "none: "
    # Matrix products inside an optimizer (Muon) have the narrow dtype, like all matrix products.
    multiplies = any(node.op in PRODUCTS for node in walk_nodes(rule.every_node))
    compared = partial(_compare_values, context, multiplies, broken)
    count = len(steps) // 2
    expected = case.train(rule, alone, case.material, ("steps", context.narrowed, len(alone)))
    if context.dtype == "float16":
        expected = _skip_last_step(expected, len(alone))

    context.open_case(case, rule)
    values: ArrayDict = {}
    results_by_step = remote.train(alone, case.material.state)
    last_steps = range(len(steps) + 1, len(alone) + 1)
    compared_steps = [*(n for n in (*COMPARED, *COMPARED_LATER) if n <= len(steps)), *last_steps]
    for number in compared_steps:
        values |= step_values(number, results_by_step[number - 1], case.material)
    losses = [f"step {number}: loss" for number in compared_steps if number <= len(steps)]
    one_by_one = _expect_joined_losses(
        expected.only(*(f"step {number}: " for number in compared_steps)), losses
    )
    deviations = compared("one by one", _join_losses(values, losses), one_by_one)
    deviations += compared("from large parameters", *_step_from_large(context, rule, steps[0]))
    # Compare the losses of the second half, which depend on all earlier updates, and all values
    # after the last step.
    context = replace(context, case=case)
    results, after = context.run_pipeline("train", steps[:count], rule, RATE)
    losses = [f"step {count + i}: loss" for i in range(1, count + 1)]
    values = {n: r["loss"] for n, r in zip(losses, results, strict=True)}
    values |= step_values(len(steps), {"results": results[-1], **after}, case.material)
    expected_in_a_row = _expect_joined_losses(select_last(expected, count + 1, len(steps)), losses)
    deviations += compared("in a row", _join_losses(values, losses), expected_in_a_row)
    trained = run_like_train(context, steps[:TOTAL_STEPS], rule, RATE, STARTS)
    later = (_expect_late_steps(case, rule, steps[:STEPS_PER_CALL], start) for start in STARTS)
    return deviations + compared(
        "as trained", trained, _merge_expected(sum_losses(expected), *later)
    )


def _expect_late_steps(case: Case, rule: UpdateRule, steps: Batches, start: int) -> Expected:
    """Return the values expected after the last of ``steps``, if the optimizer's step count is
    ``start`` before the first."""
    last = f"step {start + len(steps)}: "
    expected = case.train(rule, steps, case.material, "late", start).only(last)
    return replace(expected, values={n: a for n, a in expected.values.items() if "loss" not in n})


def _merge_expected(*parts: Expected) -> Expected:
    values = {n: a for part in parts for n, a in part.values.items()}

    def measured(dtype: str) -> dict[str, float]:
        noise_by_part = ((part, part.measured(dtype)) for part in parts)
        return {name: noise[name] for part, noise in noise_by_part for name in part.values}

    return Expected(values, measured)


def _make_batches(context: Context, rule: UpdateRule) -> tuple[Batches, Batches]:
    """Return two lists of batches. The first list is for all three ways to run steps (see
    :func:`optimizer_steps`), and has each batch twice. The second list is for the steps that run
    one by one: it contains the first list, and adds steps with unusual learning rates and
    gradients."""
    narrowed = context.narrowed
    count = (MORE if narrowed else MANY) if rule.every_slot and not context.brief else FEW
    gradients = _make_gradients(count, narrowed)
    broken = np.array(gradients[0])
    broken[0, NAN_ENTRY] = np.nan
    # float16 cannot hold large gradients that are multiplied by the loss scale.
    large = gradients[0] if narrowed else LARGE * np.where(SIZES, gradients[0], 1)
    *batches, far, last = (
        {"inputs": {"x": x}, "targets": {}, "learning_rate": RATE}
        for x in (*gradients, large, broken)
    )
    steps = [*batches, *batches]
    rates = [{**batches[0], "learning_rate": rate} for rate in (SLOWER, 0.0)]
    alone = [*steps, *rates, far]
    # If a gradient is NaN, its norm is NaN, and frameworks use this norm in different ways.
    if context.dtype == "float16" or not (rule.totals or by_parameter(rule)):
        alone.append(last)
    return steps, alone


def _assign_groups(rule: UpdateRule) -> UpdateRule:
    """Return the optimizer with new patterns for its parameter groups, so that the parameters of
    the test model ``probe/steps`` belong to the groups in turn. The patterns in the spec match no
    name in this model."""
    rules = [None, *rule.groups.values()]
    names = [port.name for port in _make_case().training.parameters]
    assigned = {name: rules[number % len(rules)] for number, name in enumerate(names)}
    return replace(rule, groups={n: group for n, group in assigned.items() if group is not None})


def _compare_values(
    context: Context,
    multiplies: bool,
    broken: str,
    label: str,
    results: Arrays,
    expected: Expected,
) -> list[Deviation]:
    # Leave out denormal values, because XLA flushes them to 0. In narrow dtypes also leave out
    # losses, because a loss is a rounded product.
    smallest = np.finfo(context.float_dtype).tiny
    left_out = {n for n, a in expected.values.items() if 0 < np.abs(a).max() < smallest}
    left_out |= {n for n in expected.values if context.narrowed and "loss" in n}
    expected_values, results = (
        {n: a for n, a in arrays.items() if n not in left_out}
        for arrays in (expected.values, results)
    )
    measured = expected.noise(context.dtype if multiplies else context.float_dtype)
    noise = {n: max(measured[n], NOISE * PRECISION[context.float_dtype]) for n in expected_values}
    # Do not compare values that are not finite in the oracle (g / g with a gradient of 0). But
    # compare the NaN of the last step if all earlier values are finite.
    infinite = {n for n, a in expected.values.items() if not np.isfinite(a).all()}
    if any(not n.startswith(broken) for n in infinite):
        noise |= dict.fromkeys(expected_values.keys() & infinite, np.inf)
    return prefixed(f"{label}, ", compare(results, expected_values, noise, context.float_dtype))


def _step_from_large(
    context: Context, rule: UpdateRule, batch: Batch
) -> tuple[ArrayDict, Expected]:
    """Run one step from very large parameters in the open session. Return the backend's new
    parameters and the expected parameters. The step is tiny compared with the parameters, so a
    difference means that the backend clips parameters."""
    case, narrowed = _make_case(), context.narrowed
    far = single(LARGE_OFFSETS / (2**10 if narrowed else 1))
    parameters = {n: a + np.resize(far, a.shape) for n, a in case.material.parameters.items()}
    material = replace(case.material, parameters=parameters)

    def run(session: Session) -> Mapping[str, Array]:
        session.use_rule(rule)
        session.load(parameters, material.statistics)
        session.step(batch["inputs"], material.state, batch["targets"], batch["learning_rate"])
        trained: Mapping[str, Array] = session.read()["parameters"]
        return trained

    context.remote.load(material)
    (step,) = context.remote.train([batch], material.state)
    return step["parameters"], case.expect(("far", digest(rule), narrowed), run)


def _join_losses(values: Arrays, losses: Sequence[str]) -> ArrayDict:
    others = {name: array for name, array in values.items() if name not in losses}
    return {**others, LOSSES: np.concatenate([np.ravel(values[name]) for name in losses])}


def _expect_joined_losses(expected: Expected, losses: Sequence[str]) -> Expected:
    """Return the expected values with all losses (by name in ``losses``) in one array. The noise of
    this array is relative to the largest loss.

    A loss is a sum of many terms, so a single loss can be nearly 0 and then has few correct digits.
    """
    values = _join_losses(expected.values, losses)
    sizes = np.abs(values[LOSSES])

    def measured(dtype: str) -> dict[str, float]:
        noise = dict(expected.measured(dtype))
        most = max(noise[name] * size for name, size in zip(losses, sizes, strict=True))
        return noise | {LOSSES: most / sizes.max()}

    return Expected(values, measured)


def _skip_last_step(expected: Expected, last: int) -> Expected:
    """Return the values expected in float16 if loss scaling skips the step ``last``, because its
    gradients are not finite.

    In a skipped step, parameters and slots stay the same. Without loss scaling, the entry
    :data:`NAN_ENTRY` would become NaN, and all other entries would change.
    """
    values = dict(expected.values)
    for name in expected.values:
        before = name.replace(f"step {last}: ", f"step {last - 1}: ")
        if before != name and not before.endswith(("mean", "variance", "loss")):
            values[name] = expected.values[before]
    return replace(expected, values=values)


@cache
def _make_case() -> Case:
    def make(program: Program) -> Arguments:
        # Parameters start at zero, so that adding a small step to them is exact.
        drawn = draw(program, BATCH, 1, 0)
        return replace(drawn, parameters={n: 0 * a for n, a in drawn.parameters.items()})

    return make_probe_case("steps", BATCH, make)


def _make_gradients(count: int, narrowed: bool) -> Array:
    """Return gradients of shape ``[count, batch, entries]``, for ``count`` steps.

    An entry has about the same size in all steps, but a different value and sign in each step,
    except in :data:`ZERO_STEPS` and :data:`REPEATED_STEP`. If ``narrowed``, each value has seven
    bits, so that the sum over a batch needs at most eight bits and is exact in bfloat16.
    """
    random = np.random.default_rng(7)
    gradients = single(random.normal(size=(count, BATCH, len(SIZES))) * SIZES + 0.3 * SIZES)
    if narrowed:
        unit = np.exp2(np.floor(np.log2(np.where(SIZES, SIZES, 1)))) / 16
        gradients = single(np.clip(np.round(gradients / unit), -127, 127) * unit)
    gradients[ZERO_STEPS, :, 1] = 0.0
    gradients[REPEATED_STEP] = gradients[REPEATED_STEP - 1]
    return gradients


def long_state(context: Context) -> Iterator[Finding]:
    """Compare the results of twenty batches; each starts from the state that the previous batch
    returned. The batches first run with one call per batch, and then in a pipeline (without results
    in between)."""
    case, start = context.case, context.case.material.state
    if not start:
        return
    half = [
        case.batch_of(case.batch, case.time, n + 10).inputs for n in range(CARRIED_BATCHES // 2)
    ]
    batches = [*half, *half]

    def run_oracle(session: Session) -> Mapping[str, Array]:
        session.load(case.material.parameters, case.material.statistics)
        return _run_carried(partial(session.forward, "inference"), batches, start)

    def forward(inputs: Arrays, state: Arrays) -> ArrayDict:
        return check_all_arrays(context.remote.forward("inference", inputs, state))

    context.remote.load(case.material)
    expected = case.expect("long-state", run_oracle)
    finding = context.finding("long-state", _run_carried(forward, batches, start), expected)
    results, _ = context.run_pipeline(
        "forward", [{"inputs": i, "targets": {}} for i in half], None, 0.0
    )
    compared_batches = [n for n in COMPARED_BATCHES if n > len(half)]
    second_half = {
        f"batch {n}: {k}": a
        for n in compared_batches
        for k, a in results[n - len(half) - 1].items()
    }
    expected_second_half = select_names(expected, second_half).values
    pipeline_finding = context.finding(
        "long-state", second_half, Expected(expected_second_half, expected.noise)
    )
    finding.deviations += prefixed("in a row, ", pipeline_finding.deviations)
    yield finding


def _run_carried(
    forward: Callable[[Arrays, Arrays], ArrayDict], batches: Sequence[Arrays], state: Arrays
) -> ArrayDict:
    """Run the batches with ``forward(inputs, state)``; each starts from the state that the previous
    batch returned. Return the results of the batches with the numbers :data:`COMPARED_BATCHES`."""
    values: ArrayDict = {}
    for number, inputs in enumerate(batches, start=1):
        results = forward(inputs, state)
        state = state_of(results)
        if number in COMPARED_BATCHES:
            values |= {f"batch {number}: {n}": a for n, a in results.items()}
    return values
