"""What is wrong only beyond a size, or only of arrays that lie in memory in another way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.checking.checks.context import Context
from harness.checking.checks.extremes import extreme_material, least, offset_material
from harness.errors import SpecError
from harness.oracle.case import Case, entries_of, step_values
from harness.oracle.draw import draw
from harness.oracle.kinks import furthest, off_kinks
from harness.oracle.tolerance import FLOOR, PRECISION, ROUNDOFF, Deviation, prefixed, scales
from harness.oracle.yardstick import Expected
from harness.program.ir import Phase, Port, Program
from harness.program.signature import fits, nearest_sizes, noise_ports
from harness.results.findings import Finding
from harness.runtime.answers import Arguments

# Cases of many examples, time steps, units and classes, and of many of what a model has few of.

# Of a training and of an inference the examples and units, and the steps of time. Each is beyond a
# power of two at which a buffer, a block or a type may end: of the batch 32 and 64, of time 16 and
# 32, of classes 64, 128 and 256. There are as many units as examples, so that one axis may be taken
# for the other. In one of both they fill whole tiles of 32, and time whole eights, as those of
# users do, and in the other they leave a rest; others do not fill tiles, or where there are none,
# classes.
LARGE: Mapping[Phase, tuple[int, int]] = {"training": (96, 35), "inference": (99, 24)}
CLASSES, OTHERS, REMAINDER = 304, 51, 4
# Different examples in a batch. Only those have comparisons of their own, and with few of them
# none lies so near to its threshold that float32 falls to the other side.
DISTINCT = 3
# What is small in a spec is so in all cases: heads of attention, experts. Beyond 16 of them no more
# than so many numbers of a model make a case.
MANY, ENTRIES = 17, 600_000
# Whole batches of more numbers are not made.
MOST = 4_000_000
# Sizes as users have them, for which kernels may have a way of their own, are multiples of this.
TILE = 16
_cases: WeakKeyDictionary[Case, dict[Phase, Case]] = WeakKeyDictionary()
_numerous: WeakKeyDictionary[Case, Case | None] = WeakKeyDictionary()
_making = Lock()


def large_case(case: Case, own: Case, phase: Phase) -> Case:
    """The large case of a spec for gradients, or for inferences, made once for all backends."""
    with _making:
        cases = _cases.setdefault(case, {})
        if phase not in cases:
            units, time = LARGE[phase]
            sizes = _sizes(case, own, units)
            batch = own.batch if case.batch == own.batch else units
            time = own.time if case.time == own.time else time
            batch, time = nearest_sizes(case.spec.program(**sizes), batch, time)
            drawing = partial(_repeated, batch=batch, time=time)
            cases[phase] = Case(case.spec, sizes, batch, time, case.seed, drawing=drawing)
        return cases[phase]


def _sizes(case: Case, own: Case, units: int) -> dict[str, int]:
    """Large numbers for the sizes that a run has not set: those are the same in both cases."""
    program, free = case.training, _free(case, own)
    inner = [n for n in free if n not in _classes(program)]
    classes = count(CLASSES if inner[1:] else CLASSES - REMAINDER, TILE)
    others = count(OTHERS, TILE)
    sizes = dict(own.training.sizes)
    for name in (n for n in sizes if n in free):
        if name in inner:
            sizes[name] = units if name == inner[0] else next(others)
        else:
            sizes[name] = next(classes)
    try:
        case.spec.program(**sizes)
    except SpecError:  # a model that slices an axis, say, may hold at few sizes
        return dict(own.training.sizes)
    return sizes


def numerous_case(case: Case, own: Case) -> Case | None:
    """The case of a spec with more than 16 of what it has few of, made once for all backends; None
    where it has all in plenty."""
    with _making:
        if case not in _numerous:
            sizes, made = _more(case, own), None
            if sizes != case.training.sizes:
                made = Case(case.spec, sizes, case.batch, case.time, case.seed)
            _numerous[case] = made
        return _numerous[case]


def whole_batch(case: Case) -> Arguments | None:
    """A batch of as many examples as the spec trains with: those of a small case, which are off all
    kinks, in rows at random, and targets of their own. None if the spec does not say how many, or
    if they are too many."""
    training = case.spec.model.training
    batch = 0 if training is None else nearest_sizes(case.training, training.batch, case.time)[0]
    if not batch or entries_of(case.training, batch, case.time) > MOST:
        return None

    def made(number: int) -> Arguments:
        rows = np.random.default_rng(number).integers(0, case.batch, batch)

        def repeated(ports: tuple[Port, ...], arrays: ArrayDict) -> ArrayDict:
            return {
                port.name: _taken(case.training, port, arrays[port.name], rows) for port in ports
            }

        return replace(
            case.batch_of(batch, case.time, number),
            inputs=repeated(case.training.inputs, case.material.inputs),
            state=repeated(case.training.state, case.material.state),
        )

    return case.found_once("whole batch", lambda: furthest(case.training, map(made, range(4))))


def _free(case: Case, own: Case) -> dict[str, int]:
    """The spec's numbers for the sizes that are smaller in a case, the largest first."""
    sizes = own.training.sizes
    free = {
        n: size
        for n, size in sizes.items()
        if case.training.sizes[n] != size and n not in case.training.structural
    }
    return {n: sizes[n] for n in sorted(free, key=free.__getitem__, reverse=True)}


def _more(case: Case, own: Case) -> dict[str, int]:
    """Numbers above 16 for the sizes that are as small in the spec itself, the smallest first, as
    far as the model holds at them and has no more than :data:`ENTRIES` numbers."""
    program, stated = case.training, case.spec.model.sizes
    few = {
        n: size
        for n, size in program.sizes.items()
        if size == own.training.sizes[n] == stated.get(n)
        and 1 < size < MANY
        and n not in program.structural
    }
    sizes, numbers = dict(program.sizes), count(MANY)
    for name in sorted(few, key=few.__getitem__):
        tried = {**sizes, name: next(numbers)}
        try:
            made = case.spec.program(**tried)
        except SpecError:  # a part may not be larger than the whole, say
            continue
        entries = entries_of(made, case.batch, case.time)
        if entries <= ENTRIES and fits(made, case.batch, case.time):
            sizes = tried
    return sizes


def _classes(program: Program) -> set[str]:
    """The sizes that are numbers of classes: bounds of indices, and last axes of targets."""
    types = [program.type_of(port) for port in (*program.inputs, *program.targets)]
    bounds = {str(type_.bound) for type_ in types if type_.bound is not None}
    targets = [program.type_of(port) for port in program.targets]
    return bounds | {str(t.shape[-1]) for t in targets if t.bound is None and t.shape}


def _repeated(
    training: Program, _: Program, seed: int, *, batch: int, time: int
) -> tuple[int, Arguments]:
    """Material whose batch is a few examples in many rows, with one index in half of all places;
    off all kinks. See :data:`harness.oracle.kinks.Drawing`."""
    sizes = {**training.sizes, "batch": batch, "time": time}

    def made(number: int) -> Arguments:
        given = draw(training, batch, time, number)
        # At random: of rows in turn, one that is read in another's place would often be the same.
        rows = np.random.default_rng(number).integers(0, DISTINCT, batch)
        rows %= batch

        def arrays(ports: tuple[Port, ...], found: ArrayDict) -> ArrayDict:
            return {
                port.name: _rows(training, port, found[port.name], rows, sizes) for port in ports
            }

        inputs = arrays(training.inputs, given.inputs)
        state = arrays(training.state, given.state)
        return replace(given, inputs=inputs, state=state)

    return off_kinks(training, seed, made)


def _rows(
    program: Program, port: Port, array: Array, rows: Array, sizes: Mapping[str, int]
) -> Array:
    type_ = program.type_of(port)
    if type_.bound is not None:
        array = np.array(array)
        array.flat[::2] = type_.bound.resolve(sizes) - 1
    return _taken(program, port, array, rows)


def _taken(program: Program, port: Port, array: Array, rows: Array) -> Array:
    """Some rows of an array; of one without a batch, all of it."""
    axes = [str(dim) for dim in program.type_of(port).shape]
    return np.take(array, rows, axes.index("batch")) if "batch" in axes else array


# Of one step, so large that the parameters it starts from are rounded away beside it; exact.
RATE = 2.0**20
# Of the last layer's weights where logits are far out: the exp of a difference of two logits is
# then beyond the dtype.
FACTORS = {"float64": 2.0**14}
FACTOR = 2.0**10


def large_sizes(context: Context) -> Iterator[Finding]:
    """Results and gradients at sizes beyond what buffers hold. In float32 a whole step is made, and
    if the framework makes gradients they are seen by that alone."""
    case, other = (large_case(context.case, context.own, phase) for phase in LARGE)
    finding, remote = Finding("large-sizes"), context.remote
    steps = context.dtype == "float32" and case.training.loss is not None
    if not (steps and remote.automatic):
        opened = context.opened(case)
        finding = opened.compare_gradients("large-sizes", case.material, _expected(case))
    if steps:
        finding.deviations += _of_a_step(context, case)
    context.opened(other)
    finding.deviations += prefixed("inference, ", _tested(context, other, other.material, "main"))
    factor = FACTORS.get(context.dtype, FACTOR)
    far_out = {"far logits": extreme_material(other, factor)}
    if (moved := offset_material(other)) is not None:
        far_out["far from zero"] = moved
    for word, material in far_out.items():
        remote.load(material)
        tested = _tested(context, other, material, (word, factor), least(other))
        finding.deviations += prefixed(f"{word}, ", tested)
    finding.sizes = f"{case.sizes_text}; inference at {other.sizes_text}"
    yield finding


def _tested(
    context: Context, case: Case, material: Arguments, key: Any, floor: float = 0.0
) -> list[Deviation]:
    """Compare an inference and its loss, without training; the noise is at least ``floor``.
    Of numbers far out, a kernel for large sizes may overflow, or cancel, where that for
    small ones does not."""
    targets = None if case.inference.loss is None else material.targets
    expected = case.forward("inference", material, key, targets).at_least(floor)
    found = context.remote.forward("inference", material.inputs, material.state, targets)
    return context.finding("large-sizes", found, expected).deviations


def _of_a_step(context: Context, case: Case) -> list[Deviation]:
    """Those of one step, and of the results of a training that is no inference."""
    remote, expected = context.remote, _expected(case)
    deviations: list[Deviation] = []
    # Whether the model does something else in an inference than in training.
    has_phases = case.training.statistics or noise_ports(case.training)
    if remote.automatic and has_phases:
        context.opened(case)
        found = remote.forward("training", case.material.inputs, case.material.state)
        trained = expected.only("output.", "state.", "statistics.")
        deviations += context.finding("large-sizes", found, trained).deviations
    stepped = _stepped(replace(context, case=case), expected.values)
    others = context.finding("large-sizes", stepped, _rounded(case, expected, stepped))
    return deviations + prefixed("whole step, ", others.deviations)


def large_counts(context: Context) -> Iterator[Finding]:
    """Results and gradients where more is of what the spec has few of, and all else is small. Opens
    a new session."""
    case = numerous_case(context.case, context.own)
    if case is None:
        return
    context = context.opened(case)
    finding = context.compare_gradients("large-counts", case.material, _expected(case))
    finding.sizes = case.sizes_text
    yield finding


def _expected(case: Case) -> Expected:
    return with_rows(case.gradients(case.material, "main"), case.batch * case.time)


def with_rows(expected: Expected, rows: int) -> Expected:
    """Where a loss depends on no parameter, as with a single class, gradients are what rounding
    leaves of a row's probability, in each of all rows, and maybe to one side in all of them."""
    if any(gradient.any() for gradient in expected.only("gradient.").values.values()):
        return expected
    return expected.at_least(ROUNDOFF * rows, "gradient.")


def _rounded(case: Case, expected: Expected, stepped: Arrays) -> Expected:
    """Of what a step shows, with the rounding of the parameters that it was read from."""
    values = {n: a for n, a in expected.values.items() if n in stepped}
    scale = scales(values)
    read = {
        f"gradient.{n}": float(np.abs(a).max()) * FLOOR / RATE / scale[f"gradient.{n}"]
        for n, a in case.material.parameters.items()
        if f"gradient.{n}" in values
    }

    def measured(base: str) -> dict[str, float]:
        noise = expected.measured(base)
        return {n: noise[n] + read.get(n, 0.0) * PRECISION[base] for n in values}

    return Expected(values, measured)


def _stepped(context: Context, expected: Arrays) -> ArrayDict:
    """The loss of one whole step of gradient descent, and the gradients that it has followed."""
    material = context.case.material
    batches = [{"inputs": material.inputs, "targets": material.targets}]
    # Over another batch, as memory is written again.
    zeros = [
        {k: {n: np.zeros_like(a) for n, a in given.items()} for k, given in batches[0].items()}
    ]
    context.prepare("train", zeros, context.case.spec.rule("sgd"), RATE)
    context.remote.call("feed", batches=batches)
    (results,) = context.remote.call("values", first=0, count=1)
    step = {"results": results, **context.remote.call("parameters")}
    values = step_values(1, step, material)
    found = {"loss": values["step 1: loss"]}
    for name in material.parameters:
        if f"gradient.{name}" in expected:
            moved = values[f"step 1: {name} moved"]
            found[f"gradient.{name}"] = moved * moved.dtype.type(-1 / RATE)
    return found


def strides(context: Context) -> Iterator[Finding]:
    """Arrays with gaps and axes in reverse, in inference and up to the gradients of a training, and
    tensors that are views, give what others do."""
    case = context.case
    material = case.material
    found = context.remote.call(
        "strided",
        parameters=material.parameters,
        statistics=material.statistics,
        inputs=material.inputs,
        state=material.state,
        targets=material.targets,
    )
    forward = case.forward("inference", material, "main")
    every = (forward, forward, case.gradients(material, "main"))
    finding = Finding("strides")
    for results, expected in zip(found, every, strict=True):
        finding.deviations += context.finding("strides", results, expected).deviations
    yield finding
