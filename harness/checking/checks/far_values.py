"""Values far out, in a model: gates at their ends, a mean beside which the spread is small, -inf.

Each is a pass at the sizes and of a function that other checks have compiled already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harness.arrays import Array
from harness.checking.checks.context import Context
from harness.checking.checks.extremes import class_counts, is_table, last_layer, starts_at
from harness.oracle.case import Case
from harness.oracle.kinks import furthest
from harness.oracle.tolerance import ROUNDOFF
from harness.program.ir import Node, Port
from harness.program.signature import float_inputs
from harness.results.findings import Finding
from harness.runtime.answers import Arguments

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
    context.remote.load(material)
    found = context.remote.gradients(material)
    expected = case.gradients(material, "tails").at_least(least(case))
    yield context.finding("tails", found, expected)


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
    context.remote.load(material)
    found = context.remote.gradients(material)
    expected = context.case.gradients(material, "far-inputs").at_least(NOISE)
    yield context.finding("far-inputs", found, expected)


def far_material(case: Case) -> Arguments | None:
    """Inputs of floats, but for noise, and tables times one of :data:`FAR`, and all matrices but
    the last layer's as much smaller; None where nothing is far. Of the factors the one with which
    the model is the furthest off its kinks."""
    material = case.material
    inputs = {port.name for port in float_inputs(case.training)}
    tables = {n for n in material.parameters if is_table(n)}
    if not inputs | tables:
        return None
    last = last_layer(case)

    def made(factor: float) -> Arguments:
        parameters = {
            n: a * factor if n in tables else a / factor if _is_inner_matrix(n, a, last) else a
            for n, a in material.parameters.items()
        }
        given = {n: a * factor if n in inputs else a for n, a in material.inputs.items()}
        return replace(material, parameters=parameters, inputs=given)

    return case.found_once("far-inputs", lambda: furthest(case.training, map(made, FAR)))


def _is_inner_matrix(name: str, array: Array, last: str) -> bool:
    return array.ndim > 1 and not name.startswith(last)


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
        if _takes_root(node):
            return read
        read.update(node.inputs)
    return None


def least(case: Case) -> float:
    """The least noise where values are some thousands: in a normalisation, x * a - mean * a is as
    right as (x - mean) * a, and rounded at the size of x."""
    return NOISE if _before_a_root(case) is None else OFFSET * ROUNDOFF


def _takes_root(node: Node) -> bool:
    return node.op == "sqrt" or (
        node.body is not None and any(_takes_root(inner) for inner in node.body.nodes)
    )


def minus_infinity(context: Context) -> Iterator[Finding]:
    """A class that is ruled out: its logit is -inf, its probability 0, and nothing becomes NaN."""
    case = context.case
    material = masked_material(case)
    if material is None:
        return
    context.remote.load(material)
    expected = case.gradients(material, "minus-infinity")
    if np.isfinite(expected.values["loss"]):
        yield context.finding("minus-infinity", context.remote.gradients(material), expected)
        return
    # Targets that are probabilities: 0 times -inf, so that only what comes before can be held.
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
