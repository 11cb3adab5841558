"""Values at the edge: saturation, exact kinks, odd indices, NaN."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf, isfinite
from typing import Any

import numpy as np

from harness.arrays import ArrayDict
from harness.checking.checks.context import Context, part
from harness.oracle.case import Case
from harness.oracle.kinks import finite, furthest
from harness.oracle.tolerance import Deviation, prefixed
from harness.program.ir import Port
from harness.program.signature import ONE_BY_ONE, by_kind, float_inputs, owner_of
from harness.results.findings import Finding
from harness.runtime.answers import Arguments

# Where activations in use have a corner. Not the 3 of a slope of 1/6: no float holds 1/6, so that
# frameworks rightly come out on either side of it.
CORNERS = (-2.5, -1.0, 0.0, 1.0, 2.5, 6.0)
# What saturates, the largest first: what grows without end overflows at any but the last.
SATURATING = ((4.0, 4.5, 5.0, 5.5), (2.0, 2.25, 2.5), (1.25, 1.5))
# Check -> the one index of its pass.
INDICES = {"index-zero": 0, "repeated-index": 1, "last-index": -1}
ERRORS_FOR_BAD_INPUT = ("UsageError", "IndexError", "ValueError", "InvalidArgumentError")


def _compare_gradients(context: Context, check: str, material: Arguments, key: str) -> Finding:
    context.remote.load(material)
    expected = context.case.gradients(material, key).where_rounding_decides()
    return context.finding(check, context.remote.gradients(material), expected)


def _scaled(arrays: dict[str, Any], factor: float, only: Any) -> ArrayDict:
    return {n: a * factor if only(n) else a for n, a in arrays.items()}


def extremes(context: Context) -> Iterator[Finding]:
    """The last layer's weights times 1,024: logits far beyond what exp can hold in float32."""
    finding = _compare_gradients(context, "extremes", extreme_material(context.case), "extremes")
    finding.deviations = [*_where_the_dtype_ends(finding.deviations)]
    for d in finding.deviations:
        if d.error == inf and not d.reason and isfinite(d.yardstick):
            finding.faults.append(f"{d.name} is not finite where the oracle is")
    yield finding


def _where_the_dtype_ends(deviations: Sequence[Deviation]) -> Iterator[Deviation]:
    """Where a dtype ends, numbers of it are not finite, whoever computes them: in float16 often, in
    float32 for equations that overflow (an exp of logits, the log of a softmax). Where that is in a
    backward pass, it may be one layer earlier or later; or nowhere, where no digit is left."""
    gradients = [d for d in deviations if d.name.startswith("gradient.")]
    over = any(d.yardstick >= 1 for d in gradients)
    for d in deviations:
        ended = over and d in gradients and d.error == inf and not d.reason
        yield replace(d, yardstick=inf, tolerance=inf) if ended else d


def extreme_material(case: Case, factor: float = 1024.0) -> Arguments:
    """The last layer's weights times a ``factor``, a power of two."""
    last = last_layer(case)
    parameters = _scaled(case.material.parameters, factor, lambda n: n.startswith(last))
    return replace(case.material, parameters=parameters)


def saturation(context: Context) -> Iterator[Finding]:
    """State and all matrices but the last layer's times 4 or so: activations far on their ends."""
    material = saturated_material(context.case)
    yield _compare_gradients(context, "saturation", material, "saturation")


def saturated_material(case: Case) -> Arguments:
    """State and all matrices but the last layer's times one of :data:`SATURATING`."""
    return case.found_once("saturation", lambda: _most_saturated(case))


def _most_saturated(case: Case) -> Arguments:
    programs = (case.training, case.inference)
    for factors in SATURATING:
        materials = [_saturated(case, factor) for factor in factors]
        usable = [material for material in materials if finite(*programs, material)]
        if usable:
            break
    return furthest(case.training, usable or materials)


def _saturated(case: Case, factor: float) -> Arguments:
    last = last_layer(case)
    parameters = {
        n: a * factor if a.ndim > 1 and not n.startswith(last) else a
        for n, a in case.material.parameters.items()
    }
    state = {n: a * factor for n, a in case.material.state.items()}
    return replace(case.material, parameters=parameters, state=state)


def last_layer(case: Case) -> str:
    """What the names of the last layer's parameters begin with; no name where there are none."""
    parameters = case.training.parameters
    return owner_of(parameters[-1].name) + "." if parameters else "."


def kinks(context: Context) -> Iterator[Finding]:
    """Pre-activations exactly on a kink: 0 all over (relu'(0) = 0), then corners elsewhere."""
    case = context.case
    yield _compare_gradients(context, "kinks", kink_material(case), "kinks")
    yield _compare_gradients(context, "corners", corner_material(case), "corners")


def corner_material(case: Case) -> Arguments:
    """Matrices at 0 but for the last layer's and tables, so that biases alone are activated.

    They go through :data:`CORNERS` in turn, each from another one on.
    """
    last = last_layer(case)
    parameters = {}
    for number, port in enumerate(case.training.parameters):
        array = np.array(case.material.parameters[port.name])
        if array.ndim > 1 and not port.name.startswith(last) and not is_table(port.name):
            array[:] = 0.0
        elif starts_at(port, "zeros", "ones") and array.ndim == 1:
            array[:] = np.resize(np.roll(CORNERS, number), array.shape)
        parameters[port.name] = array
    return replace(case.material, parameters=parameters)


def is_table(name: str) -> bool:
    return name.endswith(".table")


def starts_at(port: Port, *laws: str) -> bool:
    stripes = (port.init or {}).get("stripes", ())
    return bool(stripes) and stripes[0]["law"] in laws


def kink_material(case: Case) -> Arguments:
    """Vectors that start at zero, inputs and states, all at 0; half of the embedding rows too."""
    parameters = {}
    for port in case.training.parameters:
        array = np.array(case.material.parameters[port.name])
        if array.ndim == 1 and starts_at(port, "zeros"):
            array[:] = 0.0
        if is_table(port.name):
            array[::2] = 0.0
        parameters[port.name] = array
    inputs = {n: a * 0 if a.dtype.kind == "f" else a for n, a in case.material.inputs.items()}
    state = {n: a * 0.0 for n, a in case.material.state.items()}
    return replace(case.material, parameters=parameters, inputs=inputs, state=state)


def embedding_rows(context: Context) -> Iterator[Finding]:
    """One index all over, targets too: 0, another, and the last; so that other rows never occur."""
    case = context.case
    if all(a.dtype.kind != "i" for a in case.material.inputs.values()):
        return
    for check, value in INDICES.items():
        yield _compare_gradients(context, check, index_material(case, value), check)


def index_material(case: Case, value: int) -> Arguments:
    """Every index, of a target too, is ``value``; -1 stands for the last one."""
    program, material = case.training, case.material

    def filled(ports: tuple[Port, ...], arrays: ArrayDict) -> ArrayDict:
        bounds = class_counts(case, ports)
        return {
            n: np.full_like(a, value % bounds[n]) if n in bounds else a for n, a in arrays.items()
        }

    inputs = filled(program.inputs, material.inputs)
    return replace(material, inputs=inputs, targets=filled(program.targets, material.targets))


def bad_index(context: Context) -> Iterator[Finding]:
    """An index out of range is an error, never a clamped, wrapped or zero row; and leaves nothing
    behind in the session."""
    case = context.case
    bounds = class_counts(case, case.training.inputs)
    if not bounds:
        return
    context.remote.load(case.material)
    finding = Finding("bad-index")
    for name in list(bounds)[:2]:
        for value in (bounds[name], -1):
            _refused(context, finding, name, value, "forward", phase="inference")
    expected = case.forward("inference", case.material, "main")
    later = context.finding(finding.check, context.forward(case.material), expected)
    finding.deviations += prefixed("after a bad index, ", later.deviations)
    if case.training.loss is not None:
        name, targets = next(iter(bounds)), case.material.targets
        asked = {"phase": "training", "targets": targets}
        _refused(context, finding, name, bounds[name], "gradients", **asked)
        expected = case.gradients(case.material, "main")
        later = context.finding(finding.check, context.remote.gradients(case.material), expected)
        finding.deviations += prefixed("after a training of a bad index, ", later.deviations)
    yield finding


def _refused(
    context: Context, finding: Finding, name: str, value: int, verb: str, **asked: Any
) -> None:
    """One index out of range must be an error of a session's verb."""
    material = context.case.material
    inputs = {n: np.array(a) for n, a in material.inputs.items()}
    inputs[name].flat[0] = value
    outcome = context.remote.outcome(verb, inputs=inputs, state=material.state, **asked)
    finding.held += 1
    if outcome.status == "ok":
        finding.faults.append(f"{name} = {value} was accepted")
    elif outcome.kind not in ERRORS_FOR_BAD_INPUT:
        finding.faults.append(f"{name} = {value} gave {outcome.cause}")


def class_counts(case: Case, ports: Iterable[Port]) -> dict[str, int]:
    """The number of classes of every port that holds indices."""
    program = case.training
    types = {port.name: program.type_of(port) for port in ports}
    sizes = {**program.sizes, "batch": case.batch, "time": case.time}
    return {n: t.bound.resolve(sizes) for n, t in types.items() if t.bound is not None}


def nan(context: Context) -> Iterator[Finding]:
    """NaN all over one parameter, each in turn, reaches every output and loss that it must; of many
    those of the first and of the last of all blocks.

    And some gradient, where one must be nothing but NaN. Not each: the slope of a relu at NaN is 0
    or 1, whoever defines it, and rows that nobody has read may have a gradient of 0.
    """
    case = context.case
    if not case.training.parameters:
        return
    finding = Finding("nan")
    names = [port.name for port in case.training.parameters]
    if len(names) > ONE_BY_ONE:
        ends = {name for alike in by_kind(names) for name in (alike[0], alike[-1])}
        names = [name for name in names if name in ends]
    for name in names:
        _hold_nan(context, finding, "parameters", name)
    yield finding


def nan_inputs(context: Context) -> Iterator[Finding]:
    """The same of what a batch gives, inputs of floats and a state, and of the first parameter."""
    program = context.case.training
    groups = {
        "parameters": program.parameters[:1],
        "inputs": float_inputs(program),
        "state": program.state,
    }
    finding = Finding("nan-inputs")
    for group, ports in groups.items():
        for port in ports:
            _hold_nan(context, finding, group, port.name)
    if finding.held:
        yield finding


def _hold_nan(context: Context, finding: Finding, group: str, name: str) -> None:
    """NaN all over one array of a group of arguments reaches what it must."""
    case = context.case
    arrays = getattr(case.material, group)
    material = replace(
        case.material, **{group: {**arrays, name: np.full_like(arrays[name], np.nan)}}
    )
    expected = case.gradients(material, f"nan in {group}: {name}").values
    context.remote.load(material)
    found = context.remote.gradients(material)
    wanted = reached = False
    for tensor, array in part(expected, "output.", "loss", "metric.", "gradient.").items():
        finding.held += 1
        got = found.get(tensor)
        if not isinstance(got, np.ndarray) or got.shape != array.shape:
            finding.faults.append(f"{tensor}: no array of shape {list(array.shape)} came back")
            continue
        there = np.isnan(np.asarray(got, np.float64))
        lost = np.isnan(array) & ~there
        if tensor.startswith("gradient."):
            wanted = wanted or bool(np.isnan(array).all())
            reached = reached or bool(there.any())
        elif lost.any():
            place = [int(index) for index in np.argwhere(lost)[0]]
            finding.faults.append(
                f"{tensor}: of NaN in {name}, {int(lost.sum())} NaN were lost, the first at {place}"
            )
    if wanted and not reached:
        finding.faults.append(f"no gradient is NaN where all of {name} is")
