"""Properties that any right backend has, whatever the model computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays, widened
from harness.checking.checks.context import Context, equal, hold_again, where_apart
from harness.checking.checks.thresholds import whole_batch, with_rows
from harness.oracle.case import Case
from harness.oracle.kinks import furthest
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
from harness.runtime.answers import Arguments, IllFormed, whole

# What a result may not depend on: other examples of the batch, later time steps.
#
# Whether a model has such a property, the oracle says: what its own results depend on is no fault.

# Examples that are run one by one, at most; they lie spread over the batch.
ROWS = 4


def batch_independence(context: Context) -> Iterator[Finding]:
    """A batch gives what its examples give one by one, in inference."""
    case = context.case
    axes = _axes(case, "batch")
    if not axes or not fits(case.inference, 1, case.time):
        return
    rows = sorted({round(r) for r in np.linspace(0, case.batch - 1, ROWS)})
    main = case.forward("inference", case.material, "main")
    wanted = _rows(main.values, axes, rows)
    alone: list[Arrays] = []
    context.remote.load(case.material)
    found = _rows(_formed(whole(context.forward(case.material)), axes, main.values), axes, rows)
    for row in rows:
        material = _example(case, row)
        expected = case.forward("inference", material, ("example", row)).values
        scale = scales(wanted[row])
        if any(relative_error(expected[n], a, scale[n]) > 1e-9 for n, a in wanted[row].items()):
            note = f"example {row} alone is another in the oracle too: examples are not independent"
            yield Finding("batch-independence", note=note)
            return
        alone.append(_formed(whole(context.forward(material)), axes, expected))
    finding = Finding("batch-independence")
    # Both sides are off from the truth: twice the noise.
    noise = {name: 2 * main.noise(context.dtype)[name] for name in axes}
    joined = {n: np.concatenate([a[n] for a in alone], axis) for n, axis in axes.items()}
    together = {
        n: widened(np.concatenate([found[row][n] for row in rows], axis))
        for n, axis in axes.items()
    }
    finding.deviations = compare(joined, together, noise, context.kept)
    yield finding


def causality(context: Context) -> Iterator[Finding]:
    """What later time steps of the inputs cannot change in the oracle, they do not change."""
    case = context.case
    axes = _axes(case, "time")
    timed = {p.name: a for p in case.inference.inputs for a in [_axis(case.inference, p, "time")]}
    if not axes or all(axis is None for axis in timed.values()):
        return
    step = case.time // 2
    other = case.batch_of(case.batch, case.time, 2)
    given = case.material.inputs
    inputs = {
        # Later steps are those of another batch.
        name: np.concatenate(
            [_halves(given[name], axis, step)[0], _halves(other.inputs[name], axis, step)[1]], axis
        )
        for name, axis in timed.items()
        if axis is not None
    }
    changed = replace(case.material, inputs={**given, **inputs})
    main = case.forward("inference", case.material, "main")
    truths = [main.values, case.forward("inference", changed, "later steps changed").values]
    context.remote.load(case.material)
    runs = [_formed(whole(context.forward(m)), axes, main.values) for m in (case.material, changed)]
    finding = Finding("causality", note=f"all outputs before step {step} depend on later inputs")
    noise, scale = main.noise(context.dtype), scales(main.values)
    for name, axis in axes.items():
        before, after = (_halves(run[name], axis, step) for run in truths)
        one, two = (_halves(run[name], axis, step) for run in runs)
        if np.array_equal(before[0], after[0], equal_nan=True) and before[0].size:
            finding.held, finding.note = finding.held + 1, ""
            if not equal(one[0], two[0]):
                finding.faults.append(
                    f"{name} before step {step} depends on the input at {step} or later"
                )
        # What moves it by less than rounding need not show.
        seen = K * max(noise[name], FLOOR * PRECISION[context.dtype])
        if relative_error(after[1], before[1], scale[name]) > seen:
            finding.held, finding.note = finding.held + 1, ""
            if equal(one[1], two[1]):
                finding.faults.append(
                    f"{name} from step {step} on does not depend on the input there"
                )
    yield finding


def _axis(program: Program, port: Port, dim: str) -> int | None:
    """The axis of a port that a dimension is; None if it has none."""
    names = [str(d) for d in program.type_of(port).shape]
    return names.index(dim) if dim in names else None


def _axes(case: Case, dim: str) -> dict[str, int]:
    """The outputs, and over the batch the new state, that have such an axis."""
    program = case.inference
    ports = {f"output.{p.name}": p for p in program.outputs}
    if dim == "batch":
        ports |= {f"state.{p.name}": p for p in program.new_state}
    axes = {name: _axis(program, port, dim) for name, port in ports.items()}
    return {name: axis for name, axis in axes.items() if axis is not None}


def _formed(found: Arrays, names: Mapping[str, int], like: Arrays) -> Arrays:
    """Results that a model must have.

    Raises:
        IllFormed: one is not there, or of another shape.
    """
    for name in names:
        if name not in found:
            raise IllFormed(f"{name}: nothing was returned")
        if found[name].shape != like[name].shape:
            shapes = f"{list(like[name].shape)}, found {list(found[name].shape)}"
            raise IllFormed(f"{name}: expected shape {shapes}")
    return found


def _rows(found: Arrays, axes: Mapping[str, int], rows: list[int]) -> dict[int, ArrayDict]:
    """Of each example, its part of the results."""
    return {row: {n: found[n].take([row], axis) for n, axis in axes.items()} for row in rows}


def _example(case: Case, row: int) -> Arguments:
    """The case's arguments with one example of the batch."""
    program, material = case.training, case.material

    def one(ports: tuple[Port, ...], arrays: Arrays) -> ArrayDict:
        axes = {p.name: _axis(program, p, "batch") for p in ports}
        return {n: a if axes[n] is None else a.take([row], axes[n]) for n, a in arrays.items()}

    return Arguments(
        material.parameters,
        material.statistics,
        one(program.inputs, material.inputs),
        one(program.state, material.state),
        one(program.targets, material.targets),
    )


def _halves(array: Array, axis: int, step: int) -> tuple[Array, Array]:
    early, late = np.split(array, [step], axis)
    return early, late


# A soak: what goes wrong in one run of many, such as a race between threads.


def soak(context: Context) -> Iterator[Finding]:
    """Results and gradients of one batch, ``--repeat`` times: the same bits each time, where the
    backend's repeat."""
    if not context.repeat:
        return
    material = context.case.material
    context.remote.load(material)
    first = context.remote.gradients(material)
    finding, expected = Finding("soak"), partial(context.case.gradients, material, "main")
    for number in range(2, context.repeat + 2):
        found = context.remote.gradients(material)
        fault = f"call {number} gave another {{}} than call 1"
        finding.held += hold_again(context, finding, first, found, expected, fault)
    yield finding


# Forward passes in a row, as where a text is continued: in float64 too they would show no more.
PASSES, FEWER = 20, 4


def shapes(context: Context) -> Iterator[Finding]:
    """Other batch sizes and lengths on the same session, equal ones too; then the first again."""
    case = context.case
    context.remote.load(case.material)
    before = context.forward(case.material)
    finding = Finding("shapes")
    for batch, time in other_shapes(case):
        material = case.batch_of(batch, time)
        expected = case.forward("inference", material, (batch, time))
        found = context.forward(material)
        deviations = expected.deviations(found, context.dtype)
        finding.deviations += prefixed(f"batch {batch}, time {time}: ", deviations)
    after = context.forward(case.material)
    finding.faults += [
        f"{n} differs after other shapes{where_apart(after.get(n), before[n])}"
        for n in before
        if not equal(before[n], after.get(n))
    ]
    yield finding


def other_shapes(case: Case) -> list[tuple[int, int]]:
    """One example; one step; as many examples as steps, and more than there were before; and a
    smaller last batch; or the nearest to these that the model can have."""
    has_time = any("time" in d.names for t in case.inference.types.values() for d in t.shape)
    if has_time:
        smaller, longer = max(case.batch - 1, 1), case.time + 1
        wanted = [(1, case.time), (case.batch, 1), (longer, longer), (smaller, case.time)]
    else:
        wanted = [(1, 1), (case.batch + 2, 1)]
    found = (nearest_sizes(case.inference, batch, time) for batch, time in wanted)
    return list(dict.fromkeys(found))


def partial_batch(context: Context) -> Iterator[Finding]:
    """Loss and gradients of a smaller last batch: divided by its own size, nothing filled up; and
    of the first one after it, as another epoch begins."""
    case = context.case
    if not can_be_smaller(case):
        return
    context.remote.load(case.material)
    before = context.remote.gradients(case.material)
    smaller = smaller_batch(case)
    found = context.remote.gradients(smaller)
    finding = context.finding("partial-batch", found, case.gradients(smaller, "partial"))
    after = context.remote.gradients(case.material)
    expected = partial(case.gradients, case.material, "main")
    fault = "{} is another after a smaller batch"
    finding.held += hold_again(context, finding, before, after, expected, fault)
    yield finding


def single_example(context: Context) -> Iterator[Finding]:
    """Results and gradients of one step of one example, or of as little as the model can have,
    after those of a whole batch: of as many examples as the spec trains with."""
    case = context.case
    batch, time = nearest_sizes(case.training, 1, 1)
    if (batch, time) == (case.batch, case.time):
        return
    context.remote.load(case.material)
    whole = whole_batch(case)
    found = context.remote.gradients(whole or case.material)
    deviations: list[Deviation] = []
    if whole is not None:
        rows = max((len(a) for a in whole.inputs.values() if a.ndim), default=1)
        expected = with_rows(case.gradients(whole, "whole batch"), rows * case.time)
        deviations = context.finding("single-example", found, expected).deviations
    drawn = (case.batch_of(batch, time, number) for number in range(5, 9))
    alone = case.found_once("single-example", lambda: furthest(case.training, drawn))
    found = context.remote.gradients(alone)
    finding = context.finding("single-example", found, case.gradients(alone, "single-example"))
    finding.deviations += prefixed("whole batch, ", deviations)
    yield finding


def can_be_smaller(case: Case) -> bool:
    """Whether the model can have a batch of one example less."""
    return case.batch > 1 and fits(case.training, case.batch - 1, case.time)


def smaller_batch(case: Case) -> Arguments:
    """The same parameters with a batch of one example less."""
    return case.batch_of(case.batch - 1, case.time)


def repeatability(context: Context) -> Iterator[Finding]:
    """The same call twice gives the same bits, where the backend's repeat, and so do many forward
    passes; loading again gives a fresh start."""
    case = context.case
    finding = Finding("repeatability")
    many = FEWER if context.dtype == "float64" else PASSES
    context.remote.load(case.material)
    runs = [context.remote.gradients(case.material)]
    passes = [context.forward(case.material) for _ in range(many)]
    runs.append(context.remote.gradients(case.material))
    context.remote.load(case.material)
    runs += [context.remote.gradients(case.material) for _ in range(2)]
    expected = partial(case.gradients, case.material, "main")
    forward = partial(case.forward, "inference", case.material, "main")
    for number, found in enumerate(passes[1:], start=2):
        fault = f"{{}} of forward pass {number} is not that of the first"
        finding.held += hold_again(context, finding, passes[0], found, forward, fault)
    for number, run in enumerate(runs[1:], start=2):
        fault = f"{{}} of call {number} is not that of call 1"
        finding.held += hold_again(context, finding, runs[0], run, expected, fault)
    yield finding


def aliasing(context: Context) -> Iterator[Finding]:
    """The caller's arrays stay as they are, and results stay what they were."""
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
