"""Checks of faults that show late: after many optimizer steps, or after many batches that each
start from the previous batch's state.

Four steps do not show a bias correction that is wrong from step 11 on, or an update that is skipped
in every fifth step. A hundred steps of a network are slow. Therefore the optimizer trains
``probe/steps``, a model whose gradients the check chooses. Rounding errors do not grow there, so
the spec's own optimizer can be compared in float32 too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.checking.checks.context import Batch, Batches, Context, named, once, probe_case
from harness.checking.checks.training import MADE, TOGETHER, descended, summed
from harness.oracle.case import Case, state_of, step_values
from harness.oracle.draw import draw, single
from harness.oracle.tolerance import PRECISION, Deviation, compare, prefixed
from harness.oracle.yardstick import Expected
from harness.program.ir import Program, walk_nodes
from harness.program.serial import digest
from harness.program.updates import UpdateRule, by_parameter
from harness.results.findings import Finding
from harness.runtime.answers import Arguments, whole
from harness.runtime.precision import PRODUCTS
from harness.runtime.session import Session

BATCH = 2
# Numbers of batches; each batch is used twice. MANY is for optimizers with slots: the step number
# exceeds 127, the largest signed byte. MORE is for narrow dtypes: the step number exceeds 256, from
# which bfloat16 cannot count further. FEW is for optimizers without slots.
MANY, MORE, FEW = 66, 134, 12
# The numbers of the steps that are compared: the first steps, and steps around numbers at which a
# bias correction might change.
COMPARED = (1, 2, 3, 5, 6, 10, 11, 12, 20, 50, 100, 126, 127, 128, 129, 132)
LATER = (256, 257, 258, 260, 268)
# Learning rate: not a power of two, half-way between two float16 numbers, and exact in float32, in
# which Keras stores it.
RATE = 2.0**-10 * (1 + 2.0**-2 + 2.0**-11)
# Learning rate of the step that follows all steps with RATE. After it comes a step with rate 0, as
# at the end of a learning-rate schedule.
SLOWER = RATE / 128
# Step counts with which further steps start: after a warm-up, and at the end of a schedule.
STARTS = (1000, 5000)
# Least noise in float32: ``1 - 0.999`` loses ten bits, so the first steps of every Adam have an
# error of this size.
NOISE = 2.0**-19
LOSSES = "losses"
# The size of each entry of a gradient; the last entry is always 0.
SIZES = np.array([1, 1, 2.0**-20, 0.1, 2, 0.01, 4, 0])
# Step numbers, counted from 0. In the steps STILL, the gradient of an entry is 0 although it was
# not before. Step AGAIN repeats the gradients of the previous step.
STILL, AGAIN = slice(3, 6), 7
# One later step has gradients LARGE times as large, and none of them is 0, because XLA flushes the
# small average of such an entry to 0. In a last step the entry BROKEN is NaN, and the updates of
# all other entries must be right.
LARGE = 2.0**20
BROKEN = 5
# Offsets that make parameters unusually large: an optimizer must not clip parameters. In narrow
# dtypes the offsets are divided, so that float16 can hold them.
AWAY = np.array([30, -300, 3e3, -3e4, 3e5, -3e6, 100, -10])
# A state passes through CARRIED batches; the results of the batches SEEN are compared.
CARRIED, SEEN = 20, (6, 7, 13, 16, 20)


def optimizer_steps(context: Context) -> Iterator[Finding]:
    """Compare many steps of the spec's own optimizer, run in three ways:

    - one by one,
    - in a pipeline,
    - as in ``harness train``, also from late step counts.

    If a float32 cell of the run makes all steps, the float64 cell makes only few.
    """
    rule = context.case.spec.update
    if rule is None:
        return
    # Replace the optimizer's learning rate: each step below has a learning rate of its own.
    rule = replace(rule, attributes={**rule.attributes, "learning_rate": RATE})
    rule = _on_the_point(rule)
    key = ("optimizer-steps", digest(rule))
    finding = Finding("optimizer-steps")
    finding.deviations = list(once(context, key, lambda: _optimizer_steps(context, rule)))
    yield finding


def _optimizer_steps(context: Context, rule: UpdateRule) -> list[Deviation]:
    """Return the deviations of the steps, run in each of the three ways in new sessions. In narrow
    dtypes the gradients are exact and updates are compared in float32. So the backend must keep
    parameters, slots and the step number in float32."""
    case, remote = _point(), context.remote
    steps, alone = _steps(context, rule)
    broken = f"step {len(alone)}: " if np.isnan(alone[-1]["inputs"]["x"]).any() else "none: "
    # Matrix products inside an optimizer (Muon) have the narrow dtype, like all matrix products.
    multiplies = any(node.op in PRODUCTS for node in walk_nodes(rule.every_node))
    compared = partial(_compared, context, multiplies, broken)
    count = len(steps) // 2
    expected = case.train(rule, alone, case.material, ("steps", context.narrowed, len(alone)))
    if context.dtype == "float16":
        expected = _left_out(expected, len(alone))

    context.opened(case, rule)
    found: ArrayDict = {}
    made = remote.train(alone, case.material.state)
    others = range(len(steps) + 1, len(alone) + 1)
    seen = [*(n for n in (*COMPARED, *LATER) if n <= len(steps)), *others]
    for number in seen:
        found |= step_values(number, made[number - 1], case.material)
    losses = [f"step {number}: loss" for number in seen if number <= len(steps)]
    one_by_one = _together(expected.only(*(f"step {number}: " for number in seen)), losses)
    deviations = compared("one by one", _joined(found, losses), one_by_one)
    deviations += compared("from large parameters", *_from_afar(context, rule, steps[0]))
    # Compare the losses of the second half, which depend on all earlier updates, and all values
    # after the last step.
    context = replace(context, case=case)
    results, after = context.timed("train", steps[:count], rule, RATE)
    losses = [f"step {count + i}: loss" for i in range(1, count + 1)]
    found = {n: r["loss"] for n, r in zip(losses, results, strict=True)}
    found |= step_values(len(steps), {"results": results[-1], **after}, case.material)
    in_a_row = _together(expected.only(f"step {len(steps)}: ", *losses), losses)
    deviations += compared("in a row", _joined(found, losses), in_a_row)
    trained = descended(context, steps[:MADE], rule, RATE, STARTS)
    later = (_late(case, rule, steps[:TOGETHER], start) for start in STARTS)
    return deviations + compared("as trained", trained, _merged(summed(expected), *later))


def _late(case: Case, rule: UpdateRule, steps: Batches, start: int) -> Expected:
    """Return the values expected after the last of some steps, with ``start`` as the number of
    earlier steps."""
    last = f"step {start + len(steps)}: "
    expected = case.train(rule, steps, case.material, "late", start).only(last)
    return replace(expected, values={n: a for n, a in expected.values.items() if "loss" not in n})


def _merged(*parts: Expected) -> Expected:
    values = {n: a for part in parts for n, a in part.values.items()}

    def measured(dtype: str) -> dict[str, float]:
        found = ((part, part.measured(dtype)) for part in parts)
        return {name: noise[name] for part, noise in found for name in part.values}

    return Expected(values, measured)


def _steps(context: Context, rule: UpdateRule) -> tuple[Batches, Batches]:
    """Return two lists of batches: those that all three ways run, each batch twice, and those of
    the steps that run one by one."""
    narrowed = context.narrowed
    count = (MORE if narrowed else MANY) if rule.every_slot and not context.brief else FEW
    given = _gradients(count, narrowed)
    broken = np.array(given[0])
    broken[0, BROKEN] = np.nan
    # float16 cannot hold large gradients that are multiplied by the loss scale.
    large = given[0] if narrowed else LARGE * np.where(SIZES, given[0], 1)
    *batches, far, last = (
        {"inputs": {"x": x}, "targets": {}, "learning_rate": RATE} for x in (*given, large, broken)
    )
    steps = [*batches, *batches]
    rates = [{**batches[0], "learning_rate": rate} for rate in (SLOWER, 0.0)]
    alone = [*steps, *rates, far]
    # If a gradient is NaN, its norm is NaN, which frameworks treat differently.
    if context.dtype == "float16" or not (rule.totals or by_parameter(rule)):
        alone.append(last)
    return steps, alone


def _on_the_point(rule: UpdateRule) -> UpdateRule:
    """Return the optimizer with its parameter groups assigned to the probe's parameters in turn,
    because the spec's patterns match none of the probe's names."""
    rules = [None, *rule.groups.values()]
    names = [port.name for port in _point().training.parameters]
    dealt = {name: rules[number % len(rules)] for number, name in enumerate(names)}
    return replace(rule, groups={n: group for n, group in dealt.items() if group is not None})


def _compared(
    context: Context,
    multiplies: bool,
    broken: str,
    way: str,
    found: Arrays,
    expected: Expected,
) -> list[Deviation]:
    # Leave out denormal values, because XLA flushes them to 0. In narrow dtypes also leave out
    # losses, because a loss is a rounded product.
    least = np.finfo(context.kept).tiny
    left_out = {n for n, a in expected.values.items() if 0 < np.abs(a).max() < least}
    left_out |= {n for n in expected.values if context.narrowed and "loss" in n}
    wanted, found = (
        {n: a for n, a in some.items() if n not in left_out} for some in (expected.values, found)
    )
    measured = expected.noise(context.dtype if multiplies else context.kept)
    noise = {n: max(measured[n], NOISE * PRECISION[context.kept]) for n in wanted}
    # If the spec's own values are not finite (g / g with a gradient of 0), they are not compared.
    # The NaN of the last step is compared if all earlier values are finite.
    infinite = {n for n, a in expected.values.items() if not np.isfinite(a).all()}
    if any(not n.startswith(broken) for n in infinite):
        noise |= dict.fromkeys(wanted.keys() & infinite, np.inf)
    return prefixed(f"{way}, ", compare(found, wanted, noise, context.kept))


def _from_afar(context: Context, rule: UpdateRule, batch: Batch) -> tuple[ArrayDict, Expected]:
    """Return the parameters after one step from very large parameters, and the expected parameters.
    The step is tiny compared with these parameters, so only a backend that clips them differs. The
    step runs in the open session."""
    case, narrowed = _point(), context.narrowed
    far = single(AWAY / (2**10 if narrowed else 1))
    parameters = {n: a + np.resize(far, a.shape) for n, a in case.material.parameters.items()}
    material = replace(case.material, parameters=parameters)

    def run(session: Session) -> Mapping[str, Array]:
        session.use_rule(rule)
        session.load(parameters, material.statistics)
        session.step(batch["inputs"], material.state, batch["targets"], batch["learning_rate"])
        found: Mapping[str, Array] = session.read()["parameters"]
        return found

    context.remote.load(material)
    (step,) = context.remote.train([batch], material.state)
    return step["parameters"], case.expect(("far", digest(rule), narrowed), run)


def _joined(found: Arrays, losses: Sequence[str]) -> ArrayDict:
    rest = {name: array for name, array in found.items() if name not in losses}
    return {**rest, LOSSES: np.concatenate([np.ravel(found[name]) for name in losses])}


def _together(expected: Expected, losses: Sequence[str]) -> Expected:
    """Return the expected values with all losses in one array, whose noise is relative to the
    largest loss. A loss sums many terms, so a single loss can be nearly 0 and then has few correct
    digits."""
    values = _joined(expected.values, losses)
    sizes = np.abs(values[LOSSES])

    def measured(dtype: str) -> dict[str, float]:
        noise = dict(expected.measured(dtype))
        most = max(noise[name] * size for name, size in zip(losses, sizes, strict=True))
        return noise | {LOSSES: most / sizes.max()}

    return Expected(values, measured)


def _left_out(expected: Expected, last: int) -> Expected:
    """Return the values expected in float16, where the last step changes neither parameters nor
    slots. Its gradients are not finite, so loss scaling skips the step. Without loss scaling, only
    the entry :data:`BROKEN` would change."""
    values = dict(expected.values)
    for name in expected.values:
        before = name.replace(f"step {last}: ", f"step {last - 1}: ")
        if before != name and not before.endswith(("mean", "variance", "loss")):
            values[name] = expected.values[before]
    return replace(expected, values=values)


@cache
def _point() -> Case:
    def make(program: Program) -> Arguments:
        # Parameters start at zero, so that adding a small step to them is exact.
        given = draw(program, BATCH, 1, 0)
        return replace(given, parameters={n: 0 * a for n, a in given.parameters.items()})

    return probe_case("steps", BATCH, make)


def _gradients(count: int, narrowed: bool) -> Array:
    """Return gradients of shape ``[count, batch, entries]`` whose entries have about the same size
    at all steps. Values and signs differ between steps, except at :data:`STILL` and :data:`AGAIN`.
    If ``narrowed``, each value has seven bits, so that the sum over a batch has eight."""
    random = np.random.default_rng(7)
    found = single(random.normal(size=(count, BATCH, len(SIZES))) * SIZES + 0.3 * SIZES)
    if narrowed:
        unit = np.exp2(np.floor(np.log2(np.where(SIZES, SIZES, 1)))) / 16
        found = single(np.clip(np.round(found / unit), -127, 127) * unit)
    found[STILL, :, 1] = 0.0
    found[AGAIN] = found[AGAIN - 1]
    return found


def long_state(context: Context) -> Iterator[Finding]:
    """Compare the results of twenty batches, each starting from the state that the previous batch
    returned. The batches run with one call per batch, and in a pipeline."""
    case, start = context.case, context.case.material.state
    if not start:
        return
    some = [case.batch_of(case.batch, case.time, n + 10).inputs for n in range(CARRIED // 2)]
    batches = [*some, *some]

    def chained(session: Session) -> Mapping[str, Array]:
        session.load(case.material.parameters, case.material.statistics)
        return _carried(partial(session.forward, "inference"), batches, start)

    def forward(inputs: Arrays, state: Arrays) -> ArrayDict:
        return whole(context.remote.forward("inference", inputs, state))

    context.remote.load(case.material)
    expected = case.expect("long-state", chained)
    finding = context.finding("long-state", _carried(forward, batches, start), expected)
    results, _ = context.timed("forward", [{"inputs": i, "targets": {}} for i in some], None, 0.0)
    seen = [n for n in SEEN if n > len(some)]
    found = {f"batch {n}: {k}": a for n in seen for k, a in results[n - len(some) - 1].items()}
    wanted = named(expected, found).values
    planned = context.finding("long-state", found, Expected(wanted, expected.noise))
    finding.deviations += prefixed("in a row, ", planned.deviations)
    yield finding


def _carried(
    forward: Callable[[Arrays, Arrays], ArrayDict], batches: Sequence[Arrays], state: Arrays
) -> ArrayDict:
    """Return the results of the batches :data:`SEEN`; each batch starts from the state that the
    previous one returned."""
    found: ArrayDict = {}
    for number, inputs in enumerate(batches, start=1):
        results = forward(inputs, state)
        state = state_of(results)
        if number in SEEN:
            found |= {f"batch {number}: {n}": a for n, a in results.items()}
    return found
