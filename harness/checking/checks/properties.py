"""Checks of properties that every correct backend has, whatever the model computes, e.g.
causality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays, widen
from harness.checking.checks.context import Context, compare_repetition, equal, list_differences
from harness.checking.checks.thresholds import add_row_noise, take_rows, whole_batch
from harness.oracle.case import Case
from harness.oracle.kinks import farthest_from_kinks
from harness.oracle.tolerance import (
    FLOOR,
    PRECISION,
    Deviation,
    K,
    compare,
    prefixed,
    relative_error,
    scales,
)
from harness.program.ir import Port, Program
from harness.program.signature import fits, nearest_sizes
from harness.results.findings import Finding
from harness.runtime.answers import Arguments, IllFormed, check_all_arrays

# An example's result must not depend on the other examples of its batch, nor on later time steps.
#
# The oracle decides whether a model has this property. If the oracle's results depend on other
# examples or later steps, the backend's may too.

# At most this many examples, spread over the batch, run one by one.
SINGLE_EXAMPLES = 4


def batch_independence(context: Context) -> Iterator[Finding]:
    """Compare inference on a whole batch with inference on single examples of this batch."""
    case = context.case
    axes = _find_axes(case, "batch")
    if not axes or not fits(case.inference, 1, case.time):
        return
    row_numbers = sorted({round(r) for r in np.linspace(0, case.batch - 1, SINGLE_EXAMPLES)})
    expected_batch = case.forward("inference", case.material, "main")
    expected_rows = _take_examples(expected_batch.values, axes, row_numbers)
    single_results: list[Arrays] = []
    context.remote.load(case.material)
    batch_rows = _take_examples(
        _check_shapes(
            check_all_arrays(context.forward(case.material)), axes, expected_batch.values
        ),
        axes,
        row_numbers,
    )
    for row in row_numbers:
        material = _take_example(case, row)
        expected = case.forward("inference", material, ("example", row)).values
        scale = scales(expected_rows[row])
        if any(
            relative_error(expected[n], a, scale[n]) > 1e-9 for n, a in expected_rows[row].items()
        ):
            note = f"example {row} alone differs in the oracle too: examples are not independent"
            yield Finding("batch-independence", note=note)
            return
        single_results.append(
            _check_shapes(check_all_arrays(context.forward(material)), axes, expected)
        )
    finding = Finding("batch-independence")
    # Both results have rounding errors, so the noise is doubled.
    noise = {name: 2 * expected_batch.noise(context.dtype)[name] for name in axes}
    joined = {n: np.concatenate([a[n] for a in single_results], axis) for n, axis in axes.items()}
    together = {
        n: widen(np.concatenate([batch_rows[row][n] for row in row_numbers], axis))
        for n, axis in axes.items()
    }
    finding.deviations = compare(joined, together, noise, context.float_dtype)
    yield finding


def causality(context: Context) -> Iterator[Finding]:
    """Change the inputs of later time steps only. An earlier output may change only if the oracle's
    output changes. A later output must change if the oracle's output changes."""
    case = context.case
    axes = _find_axes(case, "time")
    time_axes = {
        p.name: a for p in case.inference.inputs for a in [_find_axis(case.inference, p, "time")]
    }
    if not axes or all(axis is None for axis in time_axes.values()):
        return
    step = case.time // 2
    other_batch = case.batch_of(case.batch, case.time, 2)
    inputs_before = case.material.inputs
    inputs = {
        # The changed inputs of the later steps come from a different batch.
        name: np.concatenate(
            [
                _split_steps(inputs_before[name], axis, step)[0],
                _split_steps(other_batch.inputs[name], axis, step)[1],
            ],
            axis,
        )
        for name, axis in time_axes.items()
        if axis is not None
    }
    changed = replace(case.material, inputs={**inputs_before, **inputs})
    expected_before = case.forward("inference", case.material, "main")
    oracle_runs = [
        expected_before.values,
        case.forward("inference", changed, "later steps changed").values,
    ]
    context.remote.load(case.material)
    runs = [
        _check_shapes(check_all_arrays(context.forward(m)), axes, expected_before.values)
        for m in (case.material, changed)
    ]
    finding = Finding("causality", note=f"all outputs before step {step} depend on later inputs")
    noise, scale = expected_before.noise(context.dtype), scales(expected_before.values)
    for name, axis in axes.items():
        before, after = (_split_steps(run[name], axis, step) for run in oracle_runs)
        first, second = (_split_steps(run[name], axis, step) for run in runs)
        if np.array_equal(before[0], after[0], equal_nan=True) and before[0].size:
            finding.held, finding.note = finding.held + 1, ""
            if not equal(first[0], second[0]):
                finding.faults.append(
                    f"{name} before step {step} depends on the input at {step} or later"
                )
        # A change that is smaller than the rounding error may be invisible.
        visible = K * max(noise[name], FLOOR * PRECISION[context.dtype])
        if relative_error(after[1], before[1], scale[name]) > visible:
            finding.held, finding.note = finding.held + 1, ""
            if equal(first[1], second[1]):
                finding.faults.append(
                    f"{name} from step {step} on does not depend on these steps' inputs"
                )
    yield finding


def _find_axis(program: Program, port: Port, dim: str) -> int | None:
    names = [str(d) for d in program.type_of(port).shape]
    return names.index(dim) if dim in names else None


def _find_axes(case: Case, dim: str) -> dict[str, int]:
    """Return a dictionary from output name to axis, for each output that has an axis ``dim``
    ("batch" or "time"). The axis is a number, e.g. 0. For "batch", the dictionary also has the new
    states."""
    program = case.inference
    ports = {f"output.{p.name}": p for p in program.outputs}
    if dim == "batch":
        ports |= {f"state.{p.name}": p for p in program.new_state}
    axes = {name: _find_axis(program, port, dim) for name, port in ports.items()}
    return {name: axis for name, axis in axes.items() if axis is not None}


def _check_shapes(results: Arrays, names: Mapping[str, int], expected: Arrays) -> Arrays:
    """Check that all results named in ``names`` have the oracle's shapes (those of ``expected``),
    and return the results.

    Raises:
        IllFormed: a result is missing or has a wrong shape.
    """
    for name in names:
        if name not in results:
            raise IllFormed(f"{name}: nothing was returned")
        if results[name].shape != expected[name].shape:
            shapes = f"{list(expected[name].shape)}, found {list(results[name].shape)}"
            raise IllFormed(f"{name}: expected shape {shapes}")
    return results


def _take_examples(
    arrays: Arrays, axes: Mapping[str, int], rows: list[int]
) -> dict[int, ArrayDict]:
    return {row: {n: arrays[n].take([row], axis) for n, axis in axes.items()} for row in rows}


def _take_example(case: Case, row: int) -> Arguments:
    program, material = case.training, case.material
    return Arguments(
        material.parameters,
        material.statistics,
        take_rows(program, program.inputs, material.inputs, [row]),
        take_rows(program, program.state, material.state, [row]),
        take_rows(program, program.targets, material.targets, [row]),
    )


def _split_steps(array: Array, axis: int, step: int) -> tuple[Array, Array]:
    early, late = np.split(array, [step], axis)
    return early, late


# The check ``soak`` repeats a call many times, to find rare faults such as a race between threads.


def soak(context: Context) -> Iterator[Finding]:
    """Compute results and gradients of one batch again, as often as the option ``--repeat`` says.
    If the backend promises to return the same bits in each call, all repetitions must have the same
    bits. Otherwise they must agree within the tolerance."""
    if not context.repeat:
        return
    material = context.case.material
    context.remote.load(material)
    first = context.remote.gradients(material)
    finding, expected = Finding("soak"), partial(context.case.gradients, material, "main")
    for number in range(2, context.repeat + 2):
        results = context.remote.gradients(material)
        fault = f"call {number} returned a different {{}} than call 1"
        finding.held += compare_repetition(context, finding, first, results, expected, fault)
    yield finding


# The number of repeated forward passes, and a smaller number for float64, where more passes find no
# further faults.
PASSES, PASSES_FLOAT64 = 20, 4


def shapes(context: Context) -> Iterator[Finding]:
    """Compare inference at several batch sizes and sequence lengths in one session. Then repeat the
    first batch: its results must be the same as before."""
    case = context.case
    context.remote.load(case.material)
    before = context.forward(case.material)
    finding = Finding("shapes")
    for batch, time in other_shapes(case):
        material = case.batch_of(batch, time)
        expected = case.forward("inference", material, (batch, time))
        results = context.forward(material)
        deviations = expected.deviations(results, context.dtype)
        finding.deviations += prefixed(f"batch {batch}, time {time}: ", deviations)
    after = context.forward(case.material)
    finding.faults += list_differences(before, after, "{} differs after other shapes")
    yield finding


def other_shapes(case: Case) -> list[tuple[int, int]]:
    """Return pairs (batch size, number of time steps) for the check :func:`shapes`. If the model
    does not accept a pair, the nearest accepted pair replaces it. The pairs are:

    - one example,
    - one time step,
    - equally many examples and time steps, more than in the case,
    - a smaller batch.
    """
    has_time = any("time" in d.names for t in case.inference.types.values() for d in t.shape)
    if has_time:
        smaller, longer = max(case.batch - 1, 1), case.time + 1
        pairs = [(1, case.time), (case.batch, 1), (longer, longer), (smaller, case.time)]
    else:
        pairs = [(1, 1), (case.batch + 2, 1)]
    accepted = (nearest_sizes(case.inference, batch, time) for batch, time in pairs)
    return list(dict.fromkeys(accepted))


def partial_batch(context: Context) -> Iterator[Finding]:
    """Compare loss and gradients of a batch with one example less, like the last batch of an epoch.
    The loss must be averaged over the examples of this smaller batch. Then compare the full batch
    again, as at the start of the next epoch."""
    case = context.case
    if not can_be_smaller(case):
        return
    context.remote.load(case.material)
    before = context.remote.gradients(case.material)
    smaller = smaller_batch(case)
    results = context.remote.gradients(smaller)
    finding = context.finding("partial-batch", results, case.gradients(smaller, "partial"))
    after = context.remote.gradients(case.material)
    expected = partial(case.gradients, case.material, "main")
    fault = "{} differs after a smaller batch"
    finding.held += compare_repetition(context, finding, before, after, expected, fault)
    yield finding


def single_example(context: Context) -> Iterator[Finding]:
    """Compare results and gradients of one example with one time step, or of the smallest batch
    that the model accepts.

    In the same session, a batch with the spec's training batch size runs first, and is compared as
    well.
    """
    case = context.case
    batch, time = nearest_sizes(case.training, 1, 1)
    if (batch, time) == (case.batch, case.time):
        return
    context.remote.load(case.material)
    training_batch = whole_batch(case)
    results = context.remote.gradients(training_batch or case.material)
    deviations: list[Deviation] = []
    if training_batch is not None:
        rows = max((len(a) for a in training_batch.inputs.values() if a.ndim), default=1)
        expected = add_row_noise(case.gradients(training_batch, "whole batch"), rows * case.time)
        deviations = context.finding("single-example", results, expected).deviations
    drawn = (case.batch_of(batch, time, number) for number in range(5, 9))
    smallest_batch = case.cached_arguments(
        "single-example", lambda: farthest_from_kinks(case.training, drawn)
    )
    results = context.remote.gradients(smallest_batch)
    finding = context.finding(
        "single-example", results, case.gradients(smallest_batch, "single-example")
    )
    finding.deviations += prefixed("whole batch, ", deviations)
    yield finding


def can_be_smaller(case: Case) -> bool:
    """Return whether the model accepts a batch with one example less than the case has."""
    return case.batch > 1 and fits(case.training, case.batch - 1, case.time)


def smaller_batch(case: Case) -> Arguments:
    """Return the case's parameters with a new random batch, which has one example less than the
    case's batch."""
    return case.batch_of(case.batch - 1, case.time)


def repeatability(context: Context) -> Iterator[Finding]:
    """Check that repeated calls, and many forward passes in succession, return the same bits. If
    the backend does not promise to repeat bits, the results must only agree within the tolerance.
    When the parameters are loaded again, the session must start afresh."""
    case = context.case
    finding = Finding("repeatability")
    pass_count = PASSES_FLOAT64 if context.dtype == "float64" else PASSES
    context.remote.load(case.material)
    runs = [context.remote.gradients(case.material)]
    passes = [context.forward(case.material) for _ in range(pass_count)]
    runs.append(context.remote.gradients(case.material))
    context.remote.load(case.material)
    runs += [context.remote.gradients(case.material) for _ in range(2)]
    expected = partial(case.gradients, case.material, "main")
    forward = partial(case.forward, "inference", case.material, "main")
    for number, found in enumerate(passes[1:], start=2):
        fault = f"{{}} of forward pass {number} differs from the first pass"
        finding.held += compare_repetition(context, finding, passes[0], found, forward, fault)
    for number, run in enumerate(runs[1:], start=2):
        fault = f"{{}} of call {number} differs from call 1"
        finding.held += compare_repetition(context, finding, runs[0], run, expected, fault)
    yield finding


def aliasing(context: Context) -> Iterator[Finding]:
    """Check that a call overwrites neither the caller's arrays nor the results of earlier calls."""
    case = context.case
    other = case.batch_of(case.batch, case.time, 3)
    calls = [{"inputs": m.inputs, "state": m.state} for m in (case.material, other)]
    faults = context.remote.call(
        "aliasing",
        parameters=case.material.parameters,
        statistics=case.material.statistics,
        calls=calls,
    )
    yield Finding("aliasing", faults=list(faults), held=1)
