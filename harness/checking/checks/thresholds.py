"""Checks of large sizes, and of arrays with an unusual memory layout."""

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

# Cases with many examples, time steps, units and classes, or with more of what a spec has few of.

# Phase -> examples (and units), and time steps. Each is beyond a power of two at which a buffer, a
# block or a type may end: the batch beyond 32 and 64, time beyond 16 and 32, classes beyond 64, 128
# and 256. Units equal examples, because a backend that confuses the two axes then raises no shape
# error. One phase fills whole tiles of 32, and time whole eights, as users' sizes do. The other
# leaves a remainder. Other sizes do not fill tiles; if there are none, classes do not.
LARGE: Mapping[Phase, tuple[int, int]] = {"training": (96, 35), "inference": (99, 24)}
CLASSES, OTHERS, REMAINDER = 304, 51, 4
# Distinct examples in a batch. Only these have their own comparisons; with few of them none is so
# near its threshold that float32 falls to the other side.
DISTINCT = 3
# Sizes that are small in a spec are small in all cases: attention heads, experts. Such a size goes
# beyond 16 only while the model has at most this many numbers.
MANY, ENTRIES = 17, 600_000
# A whole batch of more numbers is not made.
MOST = 4_000_000
# Users' sizes are multiples of this, and kernels may have special code for them.
TILE = 16
_cases: WeakKeyDictionary[Case, dict[Phase, Case]] = WeakKeyDictionary()
_numerous: WeakKeyDictionary[Case, Case | None] = WeakKeyDictionary()
_making = Lock()


def large_case(case: Case, own: Case, phase: Phase) -> Case:
    """Return the large case of a spec for a phase; it is made once for all backends."""
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
    """Return large numbers for the sizes that the run has not set; set sizes stay."""
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
    except SpecError:  # a model that slices an axis, for example, may allow few sizes
        return dict(own.training.sizes)
    return sizes


def numerous_case(case: Case, own: Case) -> Case | None:
    """Return the case whose small sizes are raised above 16; None if no size can be raised."""
    with _making:
        if case not in _numerous:
            sizes, made = _more(case, own), None
            if sizes != case.training.sizes:
                made = Case(case.spec, sizes, case.batch, case.time, case.seed)
            _numerous[case] = made
        return _numerous[case]


def whole_batch(case: Case) -> Arguments | None:
    """Return a batch of the spec's training size, made of random rows of the small case.

    Those rows are off all kinks; targets are drawn. None if the spec states no batch size or if the
    batch is too large.
    """
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
    """Return the spec's sizes that are smaller in the case, largest first."""
    sizes = own.training.sizes
    free = {
        n: size
        for n, size in sizes.items()
        if case.training.sizes[n] != size and n not in case.training.structural
    }
    return {n: sizes[n] for n in sorted(free, key=free.__getitem__, reverse=True)}


def _more(case: Case, own: Case) -> dict[str, int]:
    """Return sizes with numbers above 16 for the small sizes of the spec, smallest first. A size is
    raised only if the model accepts it and has at most :data:`ENTRIES` numbers."""
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
        except SpecError:  # a part may not be larger than the whole, for example
            continue
        entries = entries_of(made, case.batch, case.time)
        if entries <= ENTRIES and fits(made, case.batch, case.time):
            sizes = tried
    return sizes


def _classes(program: Program) -> set[str]:
    """Return the sizes that count classes: bounds of indices, and last axes of targets."""
    types = [program.type_of(port) for port in (*program.inputs, *program.targets)]
    bounds = {str(type_.bound) for type_ in types if type_.bound is not None}
    targets = [program.type_of(port) for port in program.targets]
    return bounds | {str(t.shape[-1]) for t in targets if t.bound is None and t.shape}


def _repeated(
    training: Program, _: Program, seed: int, *, batch: int, time: int
) -> tuple[int, Arguments]:
    """Draw a batch of a few repeated examples, off all kinks. Half of the indices are the last one.
    See :data:`harness.oracle.kinks.Drawing`."""
    sizes = {**training.sizes, "batch": batch, "time": time}

    def made(number: int) -> Arguments:
        given = draw(training, batch, time, number)
        # At random: if rows came in turn, reading a wrong row would often return the same values.
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
    """Return some rows of an array; the whole array if it has no batch axis."""
    axes = [str(dim) for dim in program.type_of(port).shape]
    return np.take(array, rows, axes.index("batch")) if "batch" in axes else array


# Learning rate of a single step, so large that the initial parameters are rounded away; exact.
RATE = 2.0**20
# Factors of the last layer's weights for far logits: the exp of a difference of two logits is
# beyond the dtype.
FACTORS = {"float64": 2.0**14}
FACTOR = 2.0**10


def large_sizes(context: Context) -> Iterator[Finding]:
    """Compare results and gradients at sizes beyond what buffers hold.

    In float32 a whole training step also runs. If the framework's own autodiff makes the gradients,
    only that step shows them.
    """
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
    """Compare an inference and its loss, without training; the noise is at least ``floor``. With
    extreme values a kernel for large sizes may overflow or cancel although the one for small sizes
    does not."""
    targets = None if case.inference.loss is None else material.targets
    expected = case.forward("inference", material, key, targets).at_least(floor)
    found = context.remote.forward("inference", material.inputs, material.state, targets)
    return context.finding("large-sizes", found, expected).deviations


def _of_a_step(context: Context, case: Case) -> list[Deviation]:
    """Compare one training step, and the training-mode results if they differ from inference."""
    remote, expected = context.remote, _expected(case)
    deviations: list[Deviation] = []
    # True if the model behaves differently in training and in inference.
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
    """Compare with the spec's small sizes raised above 16, in a new session."""
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
    """Return the expected values with noise for gradients that are all 0.

    If a loss depends on no parameter, as with a single class, gradients are the rounding error of
    each row's probability. These errors may have the same sign in all rows.
    """
    if any(gradient.any() for gradient in expected.only("gradient.").values.values()):
        return expected
    return expected.at_least(ROUNDOFF * rows, "gradient.")


def _rounded(case: Case, expected: Expected, stepped: Arrays) -> Expected:
    """Return the expected values of a step, with the rounding of its large parameters."""
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
    """Return the loss of one whole step of gradient descent, and the gradients that it followed."""
    material = context.case.material
    batches = [{"inputs": material.inputs, "targets": material.targets}]
    # Prepared with a batch of zeros, which the real batch overwrites.
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
    """Compare results for arrays with gaps and reversed axes, and for tensors that are views.
    Inference, and the results and gradients of training, must equal those of contiguous arrays."""
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
