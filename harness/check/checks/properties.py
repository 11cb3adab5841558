"""Properties that any right backend has, whatever the model computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.check.checks.context import Context, equal, time_major_names
from harness.check.findings import Finding
from harness.oracle.case import Case
from harness.oracle.tolerance import compare
from harness.runtime.arguments import Arguments
from harness.runtime.tensors import IllFormed, whole


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
        for d in compare(found, expected.values, expected.noise, context.dtype):
            finding.deviations.append(replace(d, name=f"batch {batch}, time {time}: {d.name}"))
    after = context.forward(case.material)
    finding.faults += [
        f"{n} differs after other shapes" for n in before if not equal(before[n], after.get(n))
    ]
    yield finding


def other_shapes(case: Case) -> list[tuple[int, int]]:
    """One example; one step; as many examples as steps; and a smaller last batch."""
    has_time = any("time" in d.names for t in case.inference.types.values() for d in t.shape)
    if not has_time:
        return [(1, 1), (case.batch + 2, 1)]
    smaller = max(case.batch - 1, 1)
    return [(1, case.time), (case.batch, 1), (case.time, case.time), (smaller, case.time)]


def partial_batch(context: Context) -> Iterator[Finding]:
    """Loss and gradients of a smaller last batch: divided by its own size, nothing filled up."""
    case = context.case
    if case.batch < 2:
        return
    context.remote.load(case.material)
    context.remote.gradients(case.material)
    smaller = smaller_batch(case)
    found = context.remote.gradients(smaller)
    yield context.finding("partial-batch", found, case.gradients(smaller, "partial"))


def smaller_batch(case: Case) -> Arguments:
    """The same parameters with a batch of one example less."""
    return case.batch_of(case.batch - 1, case.time)


def batch_independence(context: Context) -> Iterator[Finding]:
    """A batch gives what its examples give one by one, in inference."""
    case = context.case
    context.remote.load(case.material)
    found = whole(context.forward(case.material))
    oracle = case.forward("inference", case.material, "main")
    per_example = _names_with_batch(case)
    shapes = {name: oracle.values[name].shape for name in per_example}
    rows: dict[str, list[Array]] = {name: [] for name in per_example}
    for row in range(case.batch):
        one = whole(context.forward(_example(case, row)))
        for name in per_example:
            rows[name].append(_wanted(one, name, (1, *shapes[name][1:])))
    finding = Finding("batch-independence")
    if not per_example:
        return
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    expected = {n: _wanted(found, n, shapes[n]).astype(np.float64) for n in per_example}
    # Both sides are off from the truth: twice the noise.
    doubled = {name: 2 * oracle.noise[name] for name in per_example}
    finding.deviations = compare(joined, expected, doubled, context.dtype)
    yield finding


def _wanted(found: Arrays, name: str, shape: Sequence[int]) -> Array:
    """One of the results that a model must have.

    Raises:
        IllFormed: it is not there, or of another shape.
    """
    if name not in found:
        raise IllFormed(f"{name}: nothing was returned")
    if found[name].shape != tuple(shape):
        raise IllFormed(f"{name}: expected shape {list(shape)}, found {list(found[name].shape)}")
    return found[name]


def _names_with_batch(case: Case) -> list[str]:
    program = case.inference
    ports = [(f"output.{p.name}", p) for p in program.outputs]
    ports += [(f"state.{p.name}", p) for p in program.new_state]
    return [n for n, p in ports if [str(d) for d in program.types[p.value].shape[:1]] == ["batch"]]


def _example(case: Case, row: int) -> Arguments:
    def one(arrays: Arrays) -> ArrayDict:
        return {n: a[row : row + 1] for n, a in arrays.items()}

    material = case.material
    return Arguments(
        material.parameters,
        material.statistics,
        one(material.inputs),
        one(material.state),
        one(material.targets),
    )


def causality(context: Context) -> Iterator[Finding]:
    """A later character cannot change an earlier output."""
    case = context.case
    names = time_major_names(case)
    timed = [
        p.name
        for p in case.inference.inputs
        if [str(d) for d in case.inference.type_of(p).shape[:2]] == ["batch", "time"]
    ]
    if not names or not timed:
        return
    context.remote.load(case.material)
    before = whole(context.forward(case.material))
    finding = Finding("causality")
    step = case.time // 2
    other = case.batch_of(case.batch, case.time, 2)
    inputs = dict(case.material.inputs)
    for name in timed:
        inputs[name] = np.array(inputs[name])
        inputs[name][:, step:] = other.inputs[name][:, step:]
    after = whole(context.remote.forward("inference", inputs, case.material.state))
    for name in names:
        shape = case.forward("inference", case.material, "main").values[name].shape
        first, second = (_wanted(found, name, shape) for found in (before, after))
        if not equal(first[:, :step], second[:, :step]):
            finding.faults.append(
                f"{name} before step {step} depends on the input at {step} or later"
            )
        if equal(first[:, step:], second[:, step:]):
            finding.faults.append(f"{name} from step {step} on does not depend on the input there")
        finding.held += 2
    yield finding


def repeatability(context: Context) -> Iterator[Finding]:
    """The same call twice gives the same bits; loading again gives a fresh start."""
    case = context.case
    finding = Finding("repeatability")
    runs = []
    for _ in range(2):
        context.remote.load(case.material)
        runs.append(context.remote.gradients(case.material))
        runs.append(context.remote.gradients(case.material))
    for number, run in enumerate(runs[1:], start=2):
        for name, array in runs[0].items():
            finding.held += 1
            if not equal(array, run.get(name)):
                finding.faults.append(f"{name} of call {number} is not that of call 1")
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
