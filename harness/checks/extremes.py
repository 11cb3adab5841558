"""Values at the edge: saturation, exact kinks, odd indices, NaN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.case import Case
from harness.checks.context import Context, part
from harness.findings import Finding
from harness.material import Material

ERRORS_FOR_BAD_INPUT = ("UsageError", "IndexError", "ValueError", "InvalidArgumentError")


def _compare_gradients(context: Context, check: str, material: Material, key: str) -> Finding:
    context.remote.load(material)
    expected = context.case.gradients(material, key)
    return context.finding(check, context.remote.gradients(material), expected)


def _scaled(arrays: dict[str, Any], factor: float, only: Any) -> dict[str, npt.NDArray[Any]]:
    return {n: a * factor if only(n) else a for n, a in arrays.items()}


def extremes(context: Context) -> Iterator[Finding]:
    """The last layer's weights times 1,024: logits far beyond what exp can hold in float32."""
    case = context.case
    last = case.training.parameters[-1].name.partition(".")[0]
    parameters = _scaled(case.material.parameters, 1024.0, lambda n: n.startswith(f"{last}."))
    material = replace(case.material, parameters=parameters)
    finding = _compare_gradients(context, "extremes", material, "extremes")
    for d in finding.deviations:
        if d.error == float("inf") and not d.reason:
            finding.faults.append(f"{d.name} is not finite where the oracle is")
    yield finding


def kinks(context: Context) -> Iterator[Finding]:
    """Zero biases, states and float inputs: pre-activations that are exactly 0 (relu'(0) = 0)."""
    case = context.case
    material = kink_material(case)
    yield _compare_gradients(context, "kinks", material, "kinks")


def kink_material(case: Case) -> Material:
    """Vectors that start at zero, inputs and states, all at 0; half of the embedding rows too."""
    parameters = {}
    for port in case.training.parameters:
        array = np.array(case.material.parameters[port.name])
        stripes = (port.init or {}).get("stripes", ())
        if array.ndim == 1 and stripes and stripes[0]["law"] == "zeros":
            array[:] = 0.0
        if port.name.endswith(".table"):
            array[::2] = 0.0
        parameters[port.name] = array
    inputs = {n: a * 0 if a.dtype.kind == "f" else a for n, a in case.material.inputs.items()}
    state = {n: a * 0.0 for n, a in case.material.state.items()}
    return replace(case.material, parameters=parameters, inputs=inputs, state=state)


def embedding_rows(context: Context) -> Iterator[Finding]:
    """One index repeated all over, index 0, and rows that never occur."""
    case = context.case
    indices = {n: a for n, a in case.material.inputs.items() if a.dtype.kind == "i"}
    if not indices:
        return
    for value, check in ((0, "index-zero"), (1, "repeated-index")):
        inputs = {
            n: np.full_like(a, value) if n in indices else a
            for n, a in case.material.inputs.items()
        }
        material = replace(case.material, inputs=inputs)
        yield _compare_gradients(context, check, material, check)


def bad_index(context: Context) -> Iterator[Finding]:
    """An index out of range is an error, never a clamped, wrapped or zero row."""
    case = context.case
    ports = [p for p in case.inference.inputs if case.inference.type_of(p).bound is not None]
    if not ports:
        return
    context.remote.load(case.material)
    finding = Finding("bad-index")
    for port in ports[:2]:
        bound = case.inference.type_of(port).bound
        assert bound is not None
        for value in (bound.resolve(case.inference.sizes), -1):
            inputs = {n: np.array(a) for n, a in case.material.inputs.items()}
            inputs[port.name].flat[0] = value
            outcome = context.remote.outcome(
                "forward", phase="inference", inputs=inputs, state=case.material.state
            )
            finding.held += 1
            if outcome.status == "ok":
                finding.faults.append(f"{port.name} = {value} was accepted")
            elif not outcome.cause.startswith(ERRORS_FOR_BAD_INPUT):
                finding.faults.append(f"{port.name} = {value} gave {outcome.cause}")
    yield finding


def nan(context: Context) -> Iterator[Finding]:
    """A NaN in a parameter reaches every output that it reaches in the oracle."""
    case = context.case
    name = case.training.parameters[-1].name
    parameters = dict(case.material.parameters)
    parameters[name] = np.array(parameters[name])
    parameters[name].flat[0] = np.nan
    material = replace(case.material, parameters=parameters)
    context.remote.load(material)
    expected = case.forward("inference", material, "nan")
    found = context.forward(case.material)
    finding = Finding("nan")
    for tensor, array in part(expected.values, "output.").items():
        finding.held += 1
        lost = np.isnan(array) & ~np.isnan(np.asarray(found[tensor], np.float64))
        if lost.any():
            finding.faults.append(f"{tensor}: {int(lost.sum())} NaN were lost")
    yield finding
