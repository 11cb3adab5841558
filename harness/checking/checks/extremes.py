"""Checks at extreme values: saturation, exact kinks, edge indices and infinities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import inf, isfinite
from typing import Any

import numpy as np

from harness.arrays import ArrayDict
from harness.checking.checks.context import Context
from harness.oracle.case import HUGE, Case
from harness.oracle.kinks import farthest_from_kinks, has_finite_results
from harness.oracle.tolerance import ROUNDOFF, Deviation, prefixed
from harness.program.ir import Port, walk_nodes
from harness.program.signature import float_inputs, owner_of
from harness.results.findings import Finding
from harness.runtime.answers import Arguments

# The kinks of common activations. The kink at 3 of ``relu6(x + 3) / 6`` is missing: no float equals
# 1/6, so correct frameworks round to different sides of this kink.
CORNERS = (-2.5, -1.0, 0.0, 1.0, 2.5, 6.0)
# Factors that saturate gates, in groups, largest group first. Unbounded activations may overflow
# with each group except the last.
SATURATING = ((4.0, 4.5, 5.0, 5.5), (2.0, 2.25, 2.5), (1.25, 1.5))
# Name of a finding -> the index that fills its whole batch.
INDICES = {"index-zero": 0, "repeated-index": 1, "last-index": -1}
ERRORS_FOR_BAD_INPUT = ("UsageError", "IndexError", "ValueError", "InvalidArgumentError")


def _compare_at(context: Context, check: str, material: Arguments) -> Finding:
    expected = context.case.gradients(material, check).where_rounding_decides()
    return context.compare_gradients(check, material, expected)


def extremes(context: Context) -> Iterator[Finding]:
    """Compare results after multiplying the last layer's weights by 1,024, so that ``exp`` of the
    logits overflows in float32."""
    finding = _compare_at(context, "extremes", extreme_material(context.case))
    finding.deviations = [*_accept_overflow(finding.deviations)]
    for d in finding.deviations:
        if d.error == inf and not d.reason and isfinite(d.yardstick):
            finding.faults.append(f"{d.name} is not finite, but the oracle's is")
    yield finding


def _accept_overflow(deviations: Sequence[Deviation]) -> Iterator[Deviation]:
    """Yield the deviations. If some gradient of the oracle has no correct digit in this dtype,
    gradients of the backend that are not finite are accepted: they get an infinite tolerance.

    float16 often overflows. float32 overflows if the equations do (``exp`` of logits, ``log`` of a
    softmax). A backend's backward pass may then overflow one layer earlier or later than the
    oracle's backward pass, without being wrong.
    """
    gradients = [d for d in deviations if d.name.startswith("gradient.")]
    overflowed = any(d.yardstick >= 1 for d in gradients)
    for d in deviations:
        accepted = overflowed and d in gradients and d.error == inf and not d.reason
        yield replace(d, yardstick=inf, tolerance=inf) if accepted else d


def extreme_material(case: Case, factor: float = 1024.0) -> Arguments:
    """Return the arrays of the test case with the last layer's weights multiplied by ``factor``, a
    power of two."""
    last = last_layer_prefix(case)
    arrays = case.material.parameters
    parameters = {n: a * factor if n.startswith(last) else a for n, a in arrays.items()}
    return replace(case.material, parameters=parameters)


def saturation(context: Context) -> Iterator[Finding]:
    """Compare results at saturated activations, e.g. a tanh near 1. The state and the weight
    matrices, except those of the last layer, are about 4 times as large as usual."""
    yield _compare_at(context, "saturation", saturated_material(context.case))


def saturated_material(case: Case) -> Arguments:
    """Return the test arrays for the check :func:`saturation`: the weight matrices and the state
    are multiplied by :data:`SATURATING`."""
    return case.cached_arguments("saturation", lambda: _choose_saturated(case))


def _choose_saturated(case: Case) -> Arguments:
    programs = (case.training, case.inference)
    scaled = partial(_scale_arguments, case)
    for factors in SATURATING:
        # With every factor, some value of a huge model is near a kink.
        tried = factors[:1] if case.entries > HUGE else factors
        usable = [factor for factor in tried if has_finite_results(*programs, scaled(factor))]
        if usable:
            break
    return farthest_from_kinks(case.training, map(scaled, usable or tried))


def _scale_arguments(case: Case, factor: float) -> Arguments:
    last = last_layer_prefix(case)
    parameters = {
        n: a * factor if a.ndim > 1 and not n.startswith(last) else a
        for n, a in case.material.parameters.items()
    }
    state = {n: a * factor for n, a in case.material.state.items()}
    return replace(case.material, parameters=parameters, state=state)


def last_layer_prefix(case: Case) -> str:
    """Return the prefix of the last layer's parameter names, e.g. ``out.``. Return "." if no layer
    has parameters."""
    parameters = case.training.parameters
    return owner_of(parameters[-1].name) + "." if parameters else "."


def kinks(context: Context) -> Iterator[Finding]:
    """Compare results if pre-activations are exactly on a kink, where a slope jumps. First test the
    kink at 0 (the slope of relu is defined as 0 there), then other kinks, e.g. of a clipped
    function."""
    case = context.case
    yield _compare_at(context, "kinks", kink_material(case))
    yield _compare_at(context, "corners", corner_material(case))


def corner_material(case: Case) -> Arguments:
    """Return test arrays with which pre-activations are exactly on the kinks :data:`CORNERS`.

    The biases have these values. All matrices are 0, except the matrices of the last layer and
    embedding tables, so the pre-activations equal the biases. Each bias vector starts with a
    different entry of :data:`CORNERS`.
    """
    last = last_layer_prefix(case)
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


def starts_at(port: Port, *distributions: str) -> bool:
    stripes = (port.init or {}).get("stripes", ())
    return bool(stripes) and stripes[0]["law"] in distributions


def kink_material(case: Case) -> Arguments:
    """Return test arrays with which pre-activations are 0, the kink of relu: biases, inputs and
    states are zero, and half of the embedding rows are zero."""
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
    """Compare three batches with unused embedding rows. In each batch, all indices of inputs and
    targets are the same: 0, then 1, then the last index."""
    case = context.case
    if all(a.dtype.kind != "i" for a in case.material.inputs.values()):
        return
    for check, value in INDICES.items():
        yield _compare_at(context, check, index_material(case, value))


def index_material(case: Case, value: int) -> Arguments:
    """Return the arrays of the test case with each index of inputs and targets set to ``value``; -1
    means the last index."""
    program, material = case.training, case.material

    def fill_indices(ports: tuple[Port, ...], arrays: ArrayDict) -> ArrayDict:
        bounds = class_counts(case, ports)
        return {
            n: np.full_like(a, value % bounds[n]) if n in bounds else a for n, a in arrays.items()
        }

    inputs = fill_indices(program.inputs, material.inputs)
    return replace(material, inputs=inputs, targets=fill_indices(program.targets, material.targets))


def bad_index(context: Context) -> Iterator[Finding]:
    """Check that the backend raises an error for an index out of range. If the backend clamps or
    wraps the index, or returns a row of zeros, the check fails. Later calls in the session must
    give the same results as before."""
    case = context.case
    bounds = class_counts(case, case.training.inputs)
    if not bounds:
        return
    context.remote.load(case.material)
    finding = Finding("bad-index")
    for name in list(bounds)[:2]:
        for value in (bounds[name], -1):
            _check_index_error(context, finding, name, value, "forward", phase="inference")
    expected = case.forward("inference", case.material, "main")
    later = context.finding(finding.check, context.forward(case.material), expected)
    finding.deviations += prefixed("after a bad index, ", later.deviations)
    if case.training.loss is not None:
        name, targets = next(iter(bounds)), case.material.targets
        arguments = {"phase": "training", "targets": targets}
        _check_index_error(context, finding, name, bounds[name], "gradients", **arguments)
        expected = case.gradients(case.material, "main")
        later = context.finding(finding.check, context.remote.gradients(case.material), expected)
        finding.deviations += prefixed("after a training of a bad index, ", later.deviations)
    yield finding


def _check_index_error(
    context: Context, finding: Finding, name: str, value: int, verb: str, **arguments: Any
) -> None:
    """Set one entry of the input ``name``, which holds indices, to the invalid ``value``. Check
    that the worker's method ``verb`` raises an error."""
    material = context.case.material
    inputs = {n: np.array(a) for n, a in material.inputs.items()}
    inputs[name].flat[0] = value
    outcome = context.remote.outcome(verb, inputs=inputs, state=material.state, **arguments)
    finding.held += 1
    if outcome.status == "ok":
        finding.faults.append(f"{name} = {value} was accepted")
    elif outcome.kind not in ERRORS_FOR_BAD_INPUT:
        finding.faults.append(f"{name} = {value} gave {outcome.cause}")


def class_counts(case: Case, ports: Iterable[Port]) -> dict[str, int]:
    """Return a dictionary from the name of each input or target that holds indices to the number of
    allowed index values."""
    program = case.training
    types = {port.name: program.type_of(port) for port in ports}
    sizes = {**program.sizes, "batch": case.batch, "time": case.time}
    return {n: t.bound.resolve(sizes) for n, t in types.items() if t.bound is not None}


# The next checks run a model on extreme values: saturated gates, data whose mean is far larger than
# their spread, logits of -inf.
#
# Their batches have the sizes of earlier checks, so no compiled function is compiled again.

# Pre-activations outside the range of exp in float32 and float64, and beyond the point at which
# tanh rounds to 1.
TAILS = (-17.0, 40.0, -95.0, 120.0, -750.0, 17.0, -40.0, 95.0, -120.0, 1000.0, -1000.0)
FAR_STATE = 64.0
OFFSET = 1024.0
# Factors for float inputs; all are exact in float32.
FAR = (64.0, 96.0, 48.0)
# The smallest noise to assume in float32 at extreme values. Few numbers decide the result at
# extreme values, so the measured noise may be too small by chance.
NOISE = 2.0**-21


def tails(context: Context) -> Iterator[Finding]:
    """Compare results at pre-activations of up to 1,000 and at a state about 64 times as large as
    usual. If a saturating function overflows at such values, or an unbounded function is clipped,
    the check fails."""
    case = context.case
    if not any(_is_bias(case, port) for port in _inner_parameters(case)):
        return
    material = tail_material(case)
    expected = case.gradients(material, "tails").at_least(least_noise(case))
    yield context.compare_gradients("tails", material, expected)


def tail_material(case: Case) -> Arguments:
    """Return the test arrays for the check :func:`tails`. Matrices are 0, except those of the last
    layer and embedding tables. Biases have the values :data:`TAILS`. Every second entry of the
    state is multiplied by :data:`FAR_STATE`."""
    parameters = dict(case.material.parameters)
    for number, port in enumerate(_inner_parameters(case)):
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


def _inner_parameters(case: Case) -> list[Port]:
    last = last_layer_prefix(case)
    return [port for port in case.training.parameters if not port.name.startswith(last)]


def _is_bias(case: Case, port: Port) -> bool:
    """Return whether a parameter is a vector that is initialised with zeros, or with ones (e.g. the
    bias of an LSTM's forget gate)."""
    return len(case.training.type_of(port).shape) == 1 and starts_at(port, "zeros", "ones")


def far_inputs(context: Context) -> Iterator[Finding]:
    """Compare results at inputs and embedding tables that are about 64 times as large as usual, to
    find a backend that clips inputs or embeddings.

    The matrices are divided by the same factor, so pre-activations stay in their usual range. The
    purpose is that only clipping makes the backend differ from the oracle.
    """
    material = far_material(context.case)
    if material is None:
        return
    expected = context.case.gradients(material, "far-inputs").at_least(NOISE)
    yield context.compare_gradients("far-inputs", material, expected)


def far_material(case: Case) -> Arguments | None:
    """Return the test arrays for the check :func:`far_inputs`; None if the model has neither float
    inputs nor embedding tables.

    Inputs and embedding tables are multiplied by the factor in :data:`FAR` with which the values
    stay furthest from kinks. Noise inputs are not multiplied.
    """
    material = case.material
    inputs = {port.name for port in float_inputs(case.training)}
    tables = {n for n in material.parameters if is_table(n)}
    if not inputs | tables:
        return None
    inner_parameters = {
        n: a for n, a in material.parameters.items() if not n.startswith(last_layer_prefix(case))
    }
    matrices = {n for n, a in inner_parameters.items() if a.ndim > 1}

    def scale_inputs(factor: float) -> Arguments:
        parameters = {
            n: a * factor if n in tables else a / factor if n in matrices else a
            for n, a in material.parameters.items()
        }
        scaled_inputs = {n: a * factor if n in inputs else a for n, a in material.inputs.items()}
        return replace(material, parameters=parameters, inputs=scaled_inputs)

    return case.cached_arguments(
        "far-inputs", lambda: farthest_from_kinks(case.training, map(scale_inputs, FAR))
    )


def offset(context: Context) -> Iterator[Finding]:
    """Compare the forward pass of a normalisation on data whose mean is a thousand times their
    standard deviation.

    Gradients are not compared. The values have lost three digits, so some of them cross a kink,
    where gradients jump.
    """
    material = offset_material(context.case)
    if material is None:
        return
    context.remote.load(material)
    results = context.remote.forward("training", material.inputs, material.state, material.targets)
    expected = context.case.gradients(material, "offset")
    values = {n: a for n, a in expected.values.items() if not n.startswith("gradient.")}
    yield context.finding(
        "offset", results, replace(expected, values=values).at_least(least_noise(context.case))
    )


def offset_material(case: Case) -> Arguments | None:
    """Return the test arrays for the check :func:`offset`, or None if the program has no square
    root. The first square root in the program marks the first normalisation. :data:`OFFSET` is
    added to all float inputs, and to embedding tables and biases that are read before this square
    root."""
    read_before = _values_before_root(case)
    if read_before is None:
        return None
    shifted = {
        port.name
        for port in case.training.parameters
        if port.value in read_before and (is_table(port.name) or _is_bias(case, port))
    }
    parameters = {n: a + OFFSET if n in shifted else a for n, a in case.material.parameters.items()}
    inputs = {n: a + OFFSET if a.dtype.kind == "f" else a for n, a in case.material.inputs.items()}
    return replace(case.material, parameters=parameters, inputs=inputs)


def _values_before_root(case: Case) -> set[int] | None:
    """Return the numbers of the values that the program reads before its first square root; None if
    the program has no square root."""
    read: set[int] = set()
    for node in case.training.nodes:
        if any(inner.op == "sqrt" for inner in walk_nodes([node])):
            return read
        read.update(node.inputs)
    return None


def least_noise(case: Case) -> float:
    """Return the least rounding noise to assume at extreme values.

    It is larger if the model has a normalisation, because a backend may compute the normalisation
    as ``x * a - mean * a``. The rounding error is then relative to the size of ``x``.
    """
    return NOISE if _values_before_root(case) is None else OFFSET * ROUNDOFF


def minus_infinity(context: Context) -> Iterator[Finding]:
    """Compare results if one class is masked: its logit is -inf and its probability is 0. No output
    may be NaN."""
    case = context.case
    material = masked_material(case)
    if material is None:
        return
    expected = case.gradients(material, "minus-infinity")
    if np.isfinite(expected.values["loss"]):
        yield context.compare_gradients("minus-infinity", material, expected)
        return
    # If targets are probabilities, only outputs are compared: a loss with 0 * -inf is NaN.
    context.remote.load(material)
    expected = case.forward("inference", material, "minus-infinity")
    yield context.finding("minus-infinity", context.forward(material), expected)


def masked_material(case: Case) -> Arguments | None:
    """Return test arrays with one class masked: one entry of the last bias is -inf, and no target
    is this class. Return None if the last layer has no bias."""
    biases = [
        port
        for port in case.training.parameters
        if port.name.startswith(last_layer_prefix(case)) and _is_bias(case, port)
    ]
    if not biases:
        return None
    bias = np.array(case.material.parameters[biases[-1].name])
    masked = len(bias) // 2
    bias[masked] = -np.inf
    bounds = class_counts(case, case.training.targets)
    targets = {
        # Integer targets with a different number of classes belong to another layer, or are
        # lengths.
        n: np.where(a == masked, (masked + 1) % len(bias), a) if bounds.get(n) == len(bias) else a
        for n, a in case.material.targets.items()
    }
    parameters = {**case.material.parameters, biases[-1].name: bias}
    return replace(case.material, parameters=parameters, targets=targets)
