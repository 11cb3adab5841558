"""Checks at large sizes, and with arrays of an unusual memory layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.checking.checks.context import Context
from harness.checking.checks.extremes import extreme_material, least_noise, offset_material
from harness.errors import SpecError
from harness.oracle.case import Case, entries_of, step_values
from harness.oracle.draw import draw
from harness.oracle.kinks import farthest_from_kinks, off_kinks
from harness.oracle.tolerance import FLOOR, PRECISION, ROUNDOFF, Deviation, prefixed, scales
from harness.oracle.yardstick import Expected
from harness.program.ir import Phase, Port, Program
from harness.program.signature import fits, nearest_sizes, noise_ports
from harness.results.findings import Finding
from harness.runtime.answers import Arguments

# The cases below have many examples, time steps, units and classes. A further case raises sizes
# that are small in every spec, such as the number of attention heads.

# Phase -> the number of examples (also used for units), and of time steps. Each number exceeds
# powers of two at which a buffer, a block or a type may end: 64 examples, 16 or 32 time steps, 256
# classes. Units equal examples, because a backend that confuses the two axes then computes wrong
# numbers instead of raising a shape error. 96 examples fill whole tiles of 32, and 24 time steps
# whole groups of 8, as users' sizes do; 99 and 35 leave a remainder. Of the other sizes, at least
# one does not fill tiles.
LARGE: Mapping[Phase, tuple[int, int]] = {"training": (96, 35), "inference": (99, 24)}
CLASSES, OTHER_SIZES, REMAINDER = 304, 51, 4
# A large batch repeats this many distinct examples. With few distinct examples, no value is so near
# a kink that a rounding error in float32 moves the value across the kink.
DISTINCT_EXAMPLES = 3
# Some sizes are small in every case, such as the number of attention heads or experts. Such a size
# is raised to 17 or more, unless the model would then have more than MAX_ENTRIES numbers.
MANY, MAX_ENTRIES = 17, 600_000
# :func:`whole_batch` makes no batch of more numbers than this.
MAX_BATCH_ENTRIES = 4_000_000
# Users' sizes are often multiples of this number, and kernels may have special code for multiples.
TILE = 16
_large_cases: WeakKeyDictionary[Case, dict[Phase, Case]] = WeakKeyDictionary()
_numerous_cases: WeakKeyDictionary[Case, Case | None] = WeakKeyDictionary()
_lock = Lock()


def large_case(case: Case, own: Case, phase: Phase) -> Case:
    """Return a test case of the spec at large sizes, e.g. with more hidden units than the tile of a
    matrix kernel. ``case`` has small sizes, and ``own`` has the spec's own sizes.

    Training and inference (``phase``) have different sizes. The test case is stored, so that all
    backends use the same one.
    """
    with _lock:
        cases = _large_cases.setdefault(case, {})
        if phase not in cases:
            units, time = LARGE[phase]
            sizes = _large_sizes(case, own, units)
            batch = own.batch if case.batch == own.batch else units
            time = own.time if case.time == own.time else time
            batch, time = nearest_sizes(case.spec.program(**sizes), batch, time)
            drawing = partial(_draw_repeated, batch=batch, time=time)
            cases[phase] = Case(case.spec, sizes, batch, time, case.seed, drawing=drawing)
        return cases[phase]


def _large_sizes(case: Case, own: Case, units: int) -> dict[str, int]:
    """Return a dictionary from size name to number, for the large test case.

    ``units`` replaces the largest of the spec's sizes that is not a number of classes. Sizes that
    the user has set stay unchanged.
    """
    program, changeable = case.training, _changeable_sizes(case, own)
    inner_sizes = [n for n in changeable if n not in _class_sizes(program)]
    classes = count(CLASSES if inner_sizes[1:] else CLASSES - REMAINDER, TILE)
    others = count(OTHER_SIZES, TILE)
    sizes = dict(own.training.sizes)
    for name in (n for n in sizes if n in changeable):
        if name in inner_sizes:
            sizes[name] = units if name == inner_sizes[0] else next(others)
        else:
            sizes[name] = next(classes)
    try:
        case.spec.program(**sizes)
    except SpecError:  # e.g. a model that slices an axis accepts few sizes
        return dict(own.training.sizes)
    return sizes


def numerous_case(case: Case, own: Case) -> Case | None:
    """Return a test case in which small sizes, e.g. the number of attention heads, are raised to 17
    or more. ``case`` has small sizes, and ``own`` has the spec's own sizes. Return None if no size
    can be raised."""
    with _lock:
        if case not in _numerous_cases:
            sizes, result = _raise_small_sizes(case, own), None
            if sizes != case.training.sizes:
                result = Case(case.spec, sizes, case.batch, case.time, case.seed)
            _numerous_cases[case] = result
        return _numerous_cases[case]


def whole_batch(case: Case) -> Arguments | None:
    """Return test arrays with the spec's training batch size.

    The inputs are random rows of the small test case, whose values are away from kinks; the targets
    are new random targets. Return None if the spec states no batch size, or if the batch would be
    too large.
    """
    training = case.spec.model.training
    batch = 0 if training is None else nearest_sizes(case.training, training.batch, case.time)[0]
    if not batch or entries_of(case.training, batch, case.time) > MAX_BATCH_ENTRIES:
        return None

    def make_batch(number: int) -> Arguments:
        rows = np.random.default_rng(number).integers(0, case.batch, batch)
        program = case.training
        return replace(
            case.batch_of(batch, case.time, number),
            inputs=take_rows(program, program.inputs, case.material.inputs, rows),
            state=take_rows(program, program.state, case.material.state, rows),
        )

    return case.cached_arguments(
        "whole batch", lambda: farthest_from_kinks(case.training, map(make_batch, range(4)))
    )


def _changeable_sizes(case: Case, own: Case) -> dict[str, int]:
    """Return the spec's sizes (name -> number) that differ from the sizes of the small test case,
    largest first."""
    sizes = own.training.sizes
    changeable = {
        n: size
        for n, size in sizes.items()
        if case.training.sizes[n] != size and n not in case.training.structural
    }
    return {n: sizes[n] for n in sorted(changeable, key=changeable.__getitem__, reverse=True)}


def _raise_small_sizes(case: Case, own: Case) -> dict[str, int]:
    """Return the sizes of the test case (name -> number), smallest first, with small sizes raised
    above 16.

    A size is raised only if the model accepts the larger size, and if its arrays then have at most
    :data:`MAX_ENTRIES` entries.
    """
    program, stated = case.training, case.spec.model.sizes
    small_sizes = {
        n: size
        for n, size in program.sizes.items()
        if size == own.training.sizes[n] == stated.get(n)
        and 1 < size < MANY
        and n not in program.structural
    }
    sizes, numbers = dict(program.sizes), count(MANY)
    for name in sorted(small_sizes, key=small_sizes.__getitem__):
        trial = {**sizes, name: next(numbers)}
        try:
            program_of_trial = case.spec.program(**trial)
        except SpecError:  # e.g. a part may not be larger than the whole
            continue
        entries = entries_of(program_of_trial, case.batch, case.time)
        if entries <= MAX_ENTRIES and fits(program_of_trial, case.batch, case.time):
            sizes = trial
    return sizes


def _class_sizes(program: Program) -> set[str]:
    """Return the names of sizes that are numbers of classes: the upper bounds of indices, and the
    lengths of the last axes of targets that are not indices."""
    types = [program.type_of(port) for port in (*program.inputs, *program.targets)]
    bounds = {str(type_.bound) for type_ in types if type_.bound is not None}
    targets = [program.type_of(port) for port in program.targets]
    return bounds | {str(t.shape[-1]) for t in targets if t.bound is None and t.shape}


def _draw_repeated(
    training: Program, _: Program, seed: int, *, batch: int, time: int
) -> tuple[int, Arguments]:
    """Draw a batch that repeats a few examples, with all values away from kinks. Half of the
    batch's indices are the largest index. Return the seed that was used, and the test arrays.

    The function is a ``drawing`` for :class:`harness.oracle.case.Case`.
    """
    sizes = {**training.sizes, "batch": batch, "time": time}

    def draw_batch(number: int) -> Arguments:
        drawn = draw(training, batch, time, number)
        # Repeat the rows in random order. In a regular order, a wrong row would often have the same
        # values as the right one.
        rows = np.random.default_rng(number).integers(0, DISTINCT_EXAMPLES, batch)
        rows %= batch
        repeated: dict[str, ArrayDict] = {}
        for group, ports in (("inputs", training.inputs), ("state", training.state)):
            arrays = {n: np.array(a) for n, a in getattr(drawn, group).items()}
            for port in ports:
                if (bound := training.type_of(port).bound) is not None:
                    arrays[port.name].flat[::2] = bound.resolve(sizes) - 1
            repeated[group] = take_rows(training, ports, arrays, rows)
        return replace(drawn, **repeated)

    return off_kinks(training, seed, draw_batch)


def take_rows(
    program: Program, ports: Sequence[Port], arrays: Arrays, rows: Array | list[int]
) -> ArrayDict:
    """Return the rows (examples) with the numbers ``rows`` of each array, e.g. a part of a batch.
    An array without a batch axis is returned whole. ``ports`` says which axis of each array is the
    batch."""
    shapes = {port.name: [str(dim) for dim in program.type_of(port).shape] for port in ports}
    return {
        n: np.take(a, rows, shapes[n].index("batch")) if "batch" in shapes[n] else a
        for n, a in arrays.items()
    }


# Learning rate of a single step, exact in float32. It is so large that the new parameters no longer
# depend on the initial parameters, up to rounding.
RATE = 2.0**20
# Factors of the last layer's weights with which exp of the difference of two logits overflows in
# the dtype.
FACTORS = {"float64": 2.0**14}
FACTOR = 2.0**10


def large_sizes(context: Context) -> Iterator[Finding]:
    """Compare results and gradients at sizes larger than the usual buffers and tiles of kernels.

    In float32, the check also runs a whole training step. If the framework's autodiff computes the
    gradients, this step is the only comparison of float32 gradients.
    """
    case, other = (large_case(context.case, context.own, phase) for phase in LARGE)
    remote, finding = context.remote, _compare_training(context, "large-sizes", case)
    context.open_case(other)
    finding.deviations += prefixed(
        "inference, ", _compare_inference(context, "large-sizes", other, other.material, "main")
    )
    factor = FACTORS.get(context.dtype, FACTOR)
    far_arguments = {"far logits": extreme_material(other, factor)}
    if (moved := offset_material(other)) is not None:
        far_arguments["far from zero"] = moved
    for label, material in far_arguments.items():
        remote.load(material)
        key = (label, factor)
        deviations = _compare_inference(
            context, "large-sizes", other, material, key, least_noise(other)
        )
        finding.deviations += prefixed(f"{label}, ", deviations)
    finding.sizes = f"{case.sizes_text}; inference at {other.sizes_text}"
    yield finding


def own_sizes(context: Context) -> Iterator[Finding]:
    """Compare results and gradients of the loss, in float32 a training step, and inference, in new
    sessions at the spec's own sizes, or at the sizes of a huge model. Most other checks use small
    sizes.

    A huge model is compared only in float32 if the command includes this dtype.
    """
    if context.brief and context.huge is not None:
        return
    own = context.huge or context.own
    context.stage("own-sizes, part 1 of 3: expected results and gradients")
    own.gradients(own.material, "main")
    context.stage("own-sizes, part 2 of 3: results, gradients and a step of the backend")
    finding = _compare_training(context, "own-sizes", own)
    context.stage("own-sizes, part 3 of 3: inference")
    context.open_case(own)
    finding.deviations += prefixed(
        "inference, ", _compare_inference(context, "own-sizes", own, own.material, "main")
    )
    finding.sizes = own.sizes_text
    yield finding


def _compare_training(context: Context, check: str, case: Case) -> Finding:
    """Compare results and gradients of a training pass, and in float32 a whole training step. If
    the framework's autodiff computes the gradients, only the step compares them."""
    finding = Finding(check)
    steps = context.dtype == "float32" and case.training.loss is not None
    if not (steps and context.remote.automatic):
        opened_context = context.open_case(case)
        finding = opened_context.compare_gradients(check, case.material, _expected_results(case))
    if steps:
        finding.deviations += _compare_step(context, case)
    return finding


def _compare_inference(
    context: Context, check: str, case: Case, material: Arguments, key: Any, floor: float = 0.0
) -> list[Deviation]:
    """Compare outputs and loss of inference on the test arrays ``material``. The assumed noise is
    at least ``floor``, because a kernel for large sizes may overflow or cancel although the kernel
    for small sizes does not. ``key`` is the cache key of the oracle's results."""
    targets = None if case.inference.loss is None else material.targets
    expected = case.forward("inference", material, key, targets).at_least(floor)
    results = context.remote.forward("inference", material.inputs, material.state, targets)
    return context.finding(check, results, expected).deviations


def _compare_step(context: Context, case: Case) -> list[Deviation]:
    """Compare one training step at large sizes.

    If the framework's autodiff computes the gradients, a step returns gradients but no outputs. If,
    in addition, the model computes differently in training and in inference, also compare a forward
    pass in training mode.
    """
    remote, expected = context.remote, _expected_results(case)
    deviations: list[Deviation] = []
    # True if the model computes different results in training and in inference.
    has_phases = case.training.new_statistics or noise_ports(case.training)
    if remote.automatic and has_phases:
        context.open_case(case)
        results = remote.forward("training", case.material.inputs, case.material.state)
        trained = expected.only("output.", "state.", "statistics.")
        deviations += context.finding("large-sizes", results, trained).deviations
    step_results = _run_step(replace(context, case=case), expected.values)
    step_finding = context.finding(
        "large-sizes", step_results, _add_parameter_rounding(case, expected, step_results)
    )
    return deviations + prefixed("whole step, ", step_finding.deviations)


def large_counts(context: Context) -> Iterator[Finding]:
    """Compare results and gradients in a new session in which small sizes, e.g. the number of
    attention heads, are raised above 16."""
    case = numerous_case(context.case, context.own)
    if case is None:
        return
    context = context.open_case(case)
    finding = context.compare_gradients("large-counts", case.material, _expected_results(case))
    finding.sizes = case.sizes_text
    yield finding


def _expected_results(case: Case) -> Expected:
    return add_row_noise(case.gradients(case.material, "main"), case.batch * case.time)


def add_row_noise(expected: Expected, rows: int) -> Expected:
    """Return the expected values. If all expected gradients are 0, add a noise that is proportional
    to the number of rows (examples times time steps).

    If the loss depends on no parameter, e.g. with a single class, the backend's gradients are sums
    of rounding errors, one for each row. The errors may have the same sign in all rows, so the sums
    grow with the number of rows.
    """
    if any(gradient.any() for gradient in expected.only("gradient.").values.values()):
        return expected
    return expected.at_least(ROUNDOFF * rows, "gradient.")


def _add_parameter_rounding(case: Case, expected: Expected, step_results: Arrays) -> Expected:
    """Return the expected results of a step with more noise. :func:`_run_step` computes each
    gradient from the change of a parameter, so the noise of the gradient must include the rounding
    error of the parameter."""
    values = {n: a for n, a in expected.values.items() if n in step_results}
    scale = scales(values)
    read_noise = {
        f"gradient.{n}": float(np.abs(a).max()) * FLOOR / RATE / scale[f"gradient.{n}"]
        for n, a in case.material.parameters.items()
        if f"gradient.{n}" in values
    }

    def measured(base: str) -> dict[str, float]:
        noise = expected.measured(base)
        return {n: noise[n] + read_noise.get(n, 0.0) * PRECISION[base] for n in values}

    return Expected(values, measured)


def _run_step(context: Context, expected: Arrays) -> ArrayDict:
    """Run one step of gradient descent. Return a dictionary with the loss, and with gradients,
    which are computed from the change of each parameter."""
    material = context.case.material
    batches = [{"inputs": material.inputs, "targets": material.targets}]
    # Prepare the step with a batch of zeros, which the real batch then overwrites.
    zeros = [
        {k: {n: np.zeros_like(a) for n, a in arrays.items()} for k, arrays in batches[0].items()}
    ]
    context.prepare("train", zeros, context.case.spec.rule("sgd"), RATE)
    context.remote.call("feed", batches=batches)
    (results,) = context.remote.call("values", first=0, count=1)
    step = {"results": results, **context.remote.call("parameters")}
    values = step_values(1, step, material)
    results = {"loss": values["step 1: loss"]}
    for name in material.parameters:
        if f"gradient.{name}" in expected:
            change = values[f"step 1: {name} moved"]
            results[f"gradient.{name}"] = change * change.dtype.type(-1 / RATE)
    return results


def strides(context: Context) -> Iterator[Finding]:
    """Check that arrays with gaps or reversed axes, and tensors that are views, give the same
    results as contiguous arrays. The check compares inference, training results and gradients."""
    case = context.case
    material = case.material
    results_by_call = context.remote.call("strided", **vars(material))
    forward = case.forward("inference", material, "main")
    expected_by_call = (forward, forward, case.gradients(material, "main"))
    finding = Finding("strides")
    for results, expected in zip(results_by_call, expected_by_call, strict=True):
        finding.deviations += context.finding("strides", results, expected).deviations
    yield finding
