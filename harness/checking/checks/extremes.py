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
from harness.oracle.tolerance import ROUNDOFF, Deviation, prefixed
from harness.program.ir import Port, walk_nodes
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


def _compared(context: Context, check: str, material: Arguments) -> Finding:
    expected = context.case.gradients(material, check).where_rounding_decides()
    return context.compare_gradients(check, material, expected)


def extremes(context: Context) -> Iterator[Finding]:
    """The last layer's weights times 1,024: logits far beyond what exp can hold in float32."""
    finding = _compared(context, "extremes", extreme_material(context.case))
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
    arrays = case.material.parameters
    parameters = {n: a * factor if n.startswith(last) else a for n, a in arrays.items()}
    return replace(case.material, parameters=parameters)


def saturation(context: Context) -> Iterator[Finding]:
    """State and all matrices but the last layer's times 4 or so: activations far on their ends."""
    yield _compared(context, "saturation", saturated_material(context.case))


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
    yield _compared(context, "kinks", kink_material(case))
    yield _compared(context, "corners", corner_material(case))


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
        yield _compared(context, check, index_material(case, value))


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


# Values far out, in a model: gates at their ends, a mean beside which the spread is small, -inf.
#
# Each is a pass at the sizes and of a function that other checks have compiled already.

# Beyond exp's range in float32 and in float64, and where tanh first has no digit left.
TAILS = (-17.0, 40.0, -95.0, 120.0, -750.0, 17.0, -40.0, 95.0, -120.0, 1000.0, -1000.0)
FAR_STATE = 64.0
OFFSET = 1024.0
# Exact in float32, beside numbers that are.
FAR = (64.0, 96.0, 48.0)
# Of the tails, in float32: few numbers decide a result there, and a yardstick is right by luck.
NOISE = 2.0**-21


def tails(context: Context) -> Iterator[Finding]:
    """Pre-activations of up to a thousand, and a state of up to a hundred: what saturates must do
    so without an overflow, and what does not must not be cut off."""
    case = context.case
    if not any(_is_bias(case, port) for port in _inner(case)):
        return
    material = tail_material(case)
    expected = case.gradients(material, "tails").at_least(least(case))
    yield context.compare_gradients("tails", material, expected)


def tail_material(case: Case) -> Arguments:
    """Matrices at 0 but for the last layer's and tables; biases go through :data:`TAILS`, and every
    second number of a state is :data:`FAR_STATE` times what it was."""
    parameters = dict(case.material.parameters)
    for number, port in enumerate(_inner(case)):
        array = np.array(parameters[port.name])
        if _is_bias(case, port):
            array[:] = np.resize(np.roll(TAILS, number), array.shape)
        elif array.ndim > 1 and not is_table(port.name):
            array[:] = 0.0
        parameters[port.name] = array
    state = {n: np.array(a) for n, a in case.material.state.items()}
    for array in state.values():
        array.flat[::2] *= FAR_STATE
    return replace(case.material, parameters=parameters, state=state)


def _inner(case: Case) -> list[Port]:
    """The parameters of all layers but the last."""
    last = last_layer(case)
    return [port for port in case.training.parameters if not port.name.startswith(last)]


def _is_bias(case: Case, port: Port) -> bool:
    """Whether it is a vector that starts at 0, or as a forget gate's does at 1."""
    return len(case.training.type_of(port).shape) == 1 and starts_at(port, "zeros", "ones")


def far_inputs(context: Context) -> Iterator[Finding]:
    """Inputs and tables some 64 times as large, and matrices as much smaller, so that what can
    saturate is where it was: nothing may be cut off on the way."""
    material = far_material(context.case)
    if material is None:
        return
    expected = context.case.gradients(material, "far-inputs").at_least(NOISE)
    yield context.compare_gradients("far-inputs", material, expected)


def far_material(case: Case) -> Arguments | None:
    """Inputs of floats, but for noise, and tables times one of :data:`FAR`, and all matrices but
    the last layer's as much smaller; None where nothing is far. Of the factors the one with which
    the model is the furthest off its kinks."""
    material = case.material
    inputs = {port.name for port in float_inputs(case.training)}
    tables = {n for n in material.parameters if is_table(n)}
    if not inputs | tables:
        return None
    inner = {n: a for n, a in material.parameters.items() if not n.startswith(last_layer(case))}
    matrices = {n for n, a in inner.items() if a.ndim > 1}

    def made(factor: float) -> Arguments:
        parameters = {
            n: a * factor if n in tables else a / factor if n in matrices else a
            for n, a in material.parameters.items()
        }
        given = {n: a * factor if n in inputs else a for n, a in material.inputs.items()}
        return replace(material, parameters=parameters, inputs=given)

    return case.found_once("far-inputs", lambda: furthest(case.training, map(made, FAR)))


def offset(context: Context) -> Iterator[Finding]:
    """Data whose mean is a thousand times their spread, where a model takes a variance.

    A forward pass: gradients jump where a gate's corner is crossed, and numbers that have lost
    three digits do cross some.
    """
    material = offset_material(context.case)
    if material is None:
        return
    context.remote.load(material)
    found = context.remote.forward("training", material.inputs, material.state, material.targets)
    expected = context.case.gradients(material, "offset")
    values = {n: a for n, a in expected.values.items() if not n.startswith("gradient.")}
    yield context.finding(
        "offset", found, replace(expected, values=values).at_least(least(context.case))
    )


def offset_material(case: Case) -> Arguments | None:
    """All that is normalised moved by :data:`OFFSET`; None where nothing is.

    A root is what tells a normalisation from other layers. What comes before the first one is
    moved: inputs of floats, tables, biases.
    """
    before = _before_a_root(case)
    if before is None:
        return None
    moved = {
        port.name
        for port in case.training.parameters
        if port.value in before and (is_table(port.name) or _is_bias(case, port))
    }
    parameters = {n: a + OFFSET if n in moved else a for n, a in case.material.parameters.items()}
    inputs = {n: a + OFFSET if a.dtype.kind == "f" else a for n, a in case.material.inputs.items()}
    return replace(case.material, parameters=parameters, inputs=inputs)


def _before_a_root(case: Case) -> set[int] | None:
    """The values that are read before the call, or node, that first takes a root."""
    read: set[int] = set()
    for node in case.training.nodes:
        if any(inner.op == "sqrt" for inner in walk_nodes([node])):
            return read
        read.update(node.inputs)
    return None


def least(case: Case) -> float:
    """The least noise where values are some thousands: in a normalisation, x * a - mean * a is as
    right as (x - mean) * a, and rounded at the size of x."""
    return NOISE if _before_a_root(case) is None else OFFSET * ROUNDOFF


def minus_infinity(context: Context) -> Iterator[Finding]:
    """A class that is ruled out: its logit is -inf, its probability 0, and nothing becomes NaN."""
    case = context.case
    material = masked_material(case)
    if material is None:
        return
    expected = case.gradients(material, "minus-infinity")
    if np.isfinite(expected.values["loss"]):
        yield context.compare_gradients("minus-infinity", material, expected)
        return
    # Targets that are probabilities: 0 times -inf, so that only what comes before can be held.
    context.remote.load(material)
    expected = case.forward("inference", material, "minus-infinity")
    yield context.finding("minus-infinity", context.forward(material), expected)


def masked_material(case: Case) -> Arguments | None:
    """The last bias -inf at a class that is not a target; None where the last layer has none."""
    biases = [
        port
        for port in case.training.parameters
        if port.name.startswith(last_layer(case)) and _is_bias(case, port)
    ]
    if not biases:
        return None
    bias = np.array(case.material.parameters[biases[-1].name])
    masked = len(bias) // 2
    bias[masked] = -np.inf
    bounds = class_counts(case, case.training.targets)
    targets = {
        # Other whole numbers are classes of another layer, or lengths.
        n: np.where(a == masked, (masked + 1) % len(bias), a) if bounds.get(n) == len(bias) else a
        for n, a in case.material.targets.items()
    }
    parameters = {**case.material.parameters, biases[-1].name: bias}
    return replace(case.material, parameters=parameters, targets=targets)
