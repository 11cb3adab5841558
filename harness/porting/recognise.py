"""Recognise shipped functions and layers in a graph, by the form or numbers of their equations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.oracle.elementwise import (
    elementwise_names,
    elementwise_value,
    elementwise_values,
)
from harness.oracle.oracle import erf
from harness.porting.constants import common_number
from harness.porting.graph import TracedCall
from harness.porting.rewriting import Calls

# The points at which a function of one number is compared with the shipped functions, and the
# largest relative difference that is allowed there. The constants of models have eight digits.
_FAR = np.geomspace(8, 1e6, 200)
POINTS = np.concatenate([-_FAR[::-1], np.linspace(-8, 8, 4001), _FAR])
CLOSE, TINY = 1e-7, 1e-12
# The most calls in the equations of one function.
MOST_CALLS = 16


_NUMPY: Mapping[str, Callable[..., Array]] = {
    **{name: getattr(np, name) for name in ("exp", "log", "tanh", "sqrt", "maximum", "minimum")},
    "erf": erf,
    "abs": np.abs,
    "sign": np.sign,
    "negative": np.negative,
    "**": np.power,
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}


def recognise_functions(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Replace the equations of a function such as ``gelu_tanh`` by its name."""
    if call.op not in _NUMPY or not call.inputs:
        return [call]
    for source, cone in _cones(call, done):
        near = _near_constants(cone.values())
        values = _evaluate(call, cone, {source: np.concatenate([POINTS, near])})
        for name, expected in _functions().items():
            if name == call.op or not _same(values[: len(POINTS)], expected):
                continue
            if _same(values[len(POINTS) :], elementwise_value(name, near)):
                return [replace(call, op=name, inputs=(source,), attributes={})]
    return [call]


def _same(values: Array, expected: Array) -> bool:
    return np.allclose(values, expected, rtol=CLOSE, atol=TINY, equal_nan=True)


def _near_constants(calls: Iterable[TracedCall]) -> Array:
    """Return points around the constants of equations."""
    numbers = {i for call in calls for i in call.inputs if isinstance(i, int | float)}
    near = {sign * n + step for n in numbers for sign in (-1, 1) for step in (-1, 0, 1)}
    return np.array(sorted(near), np.float64)


@cache
def _functions() -> dict[str, Array]:
    """Return the values of each shipped function of one number at the points of comparison."""
    return elementwise_values(POINTS)


def _cones(
    call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterator[tuple[str, dict[str, TracedCall]]]:
    """Yield each value that is the only one on which elementwise equations depend, and the calls of
    the equations."""
    cone = {call.name: call}
    reached = set(call.sources)
    while reached and len(cone) <= MOST_CALLS:
        latest = next(iter(reached))
        if len(reached) > 1:
            # Open the value that was computed last; the values before it may be shared.
            latest = max(reached, key=list(done).index)
        elif len(cone) > 1:
            yield latest, cone
        opened = done[latest]
        if not _is_known(opened) or opened.shape != call.shape:
            return
        cone[latest] = opened
        reached.discard(latest)
        reached |= set(opened.sources)


def _is_known(call: TracedCall) -> bool:
    """Return whether a call computes a function of numbers, with the default attributes."""
    return call.op in _NUMPY or (call.op in elementwise_names() and not call.attributes)


def _evaluate(call: TracedCall, cone: Mapping[str, TracedCall], values: dict[str, Array]) -> Array:
    """Return the values of a call, whose source has the values in ``values``."""
    arguments: list[Any] = []
    for operand in call.inputs:
        if isinstance(operand, str) and operand not in values:
            values[operand] = _evaluate(cone[operand], cone, values)
        arguments.append(values[operand] if isinstance(operand, str) else operand)
    if call.op not in _NUMPY:
        return elementwise_value(call.op, arguments[0])
    with np.errstate(all="ignore"):
        return np.asarray(_NUMPY[call.op](*arguments))


def recognise_layers(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Replace the equations of a normalisation by its layer, and positions by rows of a table."""
    if call.op == "*" and (norm := _rms_norm(calls, call, done)) is not None:
        return [norm]
    if call.op == "+" and (positions := _learned_positions(calls, call, done)) is not None:
        return [positions]
    if (rows := _rows(calls, call, done)) is not None:
        table, index = rows
        before = done[index.inputs[0]] if index.op == "broadcast" else index
        if before.op == "formula" and before.attributes["formula"] == "arange":
            return _positions(calls, call, table, before)
        if (row := common_number(index)) is not None:
            return _one_row(calls, call, table, int(row))
    return [call]


def _rows(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> tuple[TracedCall, TracedCall] | None:
    """Return the model's array and the index of a call that takes rows of the array, or None."""
    if call.op == "layer" and call.attributes["layer"] == "embedding":
        name, _ = call.attributes["weights"]["table"]
        settings = call.attributes["settings"]
        shape = (settings["rows"], settings["units"])
        return calls.new(call, "weight", (), shape, name=name), done[call.inputs[0]]
    if call.op == "take" and call.attributes["axis"] == 0:
        table, index = (done[i] for i in call.inputs)
        return (table, index) if table.op == "weight" and len(table.shape) == 2 else None
    return None


def split_tied_bias(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Add the bias of a tied head in an equation of its own, as ``unembedding`` has no bias."""
    if call.op != "layer" or call.attributes["layer"] != "dense":
        return [call]
    weights = call.attributes["weights"]
    if "b" not in weights:
        return [call]
    tables = [
        c.attributes["weights"]["table"][0]
        for c in done.values()
        if c.op == "layer" and c.attributes["layer"] == "embedding"
    ]
    if weights["W"][0] not in tables:
        return [call]
    settings = {**call.attributes["settings"], "bias": False}
    head = calls.on(call, call.inputs, call.shape, settings=settings, weights={"W": weights["W"]})
    bias = calls.new(call, "weight", (), call.shape[-1:], name=weights["b"][0])
    return [head, bias, replace(call, op="+", inputs=(head.name, bias.name), attributes={})]


def _rms_norm(calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]) -> TracedCall | None:
    """Return the layer ``rms_norm`` for ``weight * (x * (1 / sqrt(mean(x ** 2) + epsilon)))``."""
    for weight, product in (call.inputs, call.inputs[::-1]):
        scale = done.get(weight)
        inner = done.get(product)
        if scale is None or inner is None or scale.op != "weight" or len(scale.shape) != 1:
            continue
        for x, factor in (inner.inputs, inner.inputs[::-1]) if inner.op in ("*", "/") else ():
            epsilon = _root_mean_square(x, factor, inner.op, done)
            if epsilon is not None:
                weights = {"gamma": [scale.attributes["name"], ""]}
                settings = {"epsilon": epsilon}
                return calls.layer(call, "rms_norm", [x], call.shape, settings, weights)
    return None


def _root_mean_square(x: Any, factor: Any, op: str, done: Mapping[str, TracedCall]) -> float | None:
    """Return epsilon if ``factor`` is ``1 / sqrt(mean(x ** 2, axis=-1) + epsilon)``."""
    root = done.get(factor)
    if root is not None and op == "*" and root.op == "/" and root.inputs[0] == 1:
        root = done.get(root.inputs[1])
    if root is None or root.op != "sqrt":
        return None
    total = done[root.inputs[0]]
    if total.op != "+" or not isinstance(total.inputs[1], float):
        return None
    mean = done[total.inputs[0]]
    if mean.op != "mean" or mean.attributes["axis"] != [len(mean.shape) - 1]:
        return None
    square = done[mean.inputs[0]]
    squared = (square.op == "**" and square.inputs == (x, 2)) or (
        square.op == "*" and square.inputs == (x, x)
    )
    return float(total.inputs[1]) if squared else None


def _learned_positions(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> TracedCall | None:
    """Return the layer ``learned_positions`` for ``x + table[:time]``."""
    for x, other in (call.inputs, call.inputs[::-1]):
        shaped = done.get(other)
        if shaped is not None and shaped.op == "broadcast":
            shaped = done[shaped.inputs[0]]
        rows = done[shaped.inputs[0]] if shaped is not None and shaped.op == "reshape" else None
        if rows is None or rows.op != "slice" or rows.attributes["start"] != 0:
            continue
        table = done[rows.inputs[0]]
        trained = table.op == "weight" and calls.weights[table.attributes["name"]][1]
        if trained and isinstance(x, str) and done[x].shape[1:] == rows.shape:
            settings = {"context": table.shape[0]}
            weights = {"table": [table.attributes["name"], ""]}
            return calls.layer(call, "learned_positions", [x], call.shape, settings, weights)
    return None


def _one_row(calls: Calls, call: TracedCall, weight: TracedCall, row: int) -> list[TracedCall]:
    """Return the calls of an embedding whose index is always the same number."""
    rows, units = weight.shape
    cut = {"axis": 0, "index": row, "length": rows}
    chosen = calls.new(call, "select", [weight.name], (units,), **cut)
    return [weight, chosen, replace(call, op="broadcast", inputs=(chosen.name,), attributes={})]


def _positions(
    calls: Calls, call: TracedCall, weight: TracedCall, index: TracedCall
) -> list[TracedCall]:
    """Return the rows of a table for consecutive positions, as a slice of a parameter."""
    count, units = weight.shape
    start, length = index.attributes["start"], index.attributes["length"]
    stop = length if not start else f"{length} + {start}"
    cut = {"axis": 0, "start": start, "stop": stop, "step": 1, "length": count}
    rows = calls.new(call, "slice", [weight.name], (length, units), **cut)
    shape = (*[1] * (len(call.shape) - 2), length, units)
    if shape == call.shape:
        return [weight, rows, replace(call, op="reshape", inputs=(rows.name,), attributes={})]
    shaped = calls.new(call, "reshape", [rows.name], shape)
    whole = replace(call, op="broadcast", inputs=(shaped.name,), attributes={})
    return [weight, rows, shaped, whole]


def recognise_rotary(
    calls: Calls, call: TracedCall, done: Mapping[str, TracedCall]
) -> Iterable[TracedCall] | str:
    """Replace ``x * cos + rotated(x) * sin`` by the function ``rotary``."""
    if call.op != "+" or not all(i in done and done[i].op == "*" for i in call.inputs):
        return [call]
    left, right = (done[i] for i in call.inputs)
    x, cosine = _with_values(left, done)
    turned, sine = _with_values(right, done)
    if x is None or turned is None or cosine is None or sine is None:
        return [call]
    half = _rotated_half(turned, x, done)
    base = None if half is None else _rotary_base(cosine, sine, half)
    if base is None:
        return [call]
    return [replace(call, op="rotary", inputs=(x,), attributes={"half": half, "base": base})]


def _with_values(
    product: TracedCall, done: Mapping[str, TracedCall]
) -> tuple[str | None, Array | None]:
    for one, other in (product.inputs, product.inputs[::-1]):
        source = done.get(other)
        if isinstance(one, str) and source is not None and source.values is not None:
            return one, source.values[0]
    return None, None


def _rotated_half(name: str, x: str, done: Mapping[str, TracedCall]) -> int | None:
    """Return half the width if a value is ``concat([-x[..., half:], x[..., :half]])``."""
    joined = done[name]
    if joined.op != "concat" or len(joined.inputs) != 2:
        return None
    minus, first = (done[i] for i in joined.inputs)
    second = done[minus.inputs[0]] if minus.op == "negative" else minus
    width = joined.shape[-1]
    cuts = [c.attributes for c in (first, second) if c.op == "slice" and c.inputs == (x,)]
    if minus.op != "negative" or len(cuts) != 2 or not isinstance(width, int):
        return None
    half = width // 2
    right = cuts[0]["start"] == 0 and cuts[0]["stop"] == half and cuts[1]["start"] == half
    return half if right and cuts[1]["stop"] == width else None


def _rotary_base(cosine: Array, sine: Array, half: int) -> float | None:
    """Return the base of the frequencies if tables hold cosines and sines of rotary positions."""
    table, other = (a.reshape(-1, a.shape[-1]).astype(np.float64) for a in (cosine, sine))
    if table.shape[-1] != 2 * half or len(table) < 2 or half < 2:
        return None
    step = np.arctan2(other[1, 1], table[1, 1])
    base = float(np.round(step ** (-half), 3)) if step > 0 else 0.0
    if base <= 1:
        return None
    base = round(base) if abs(base - round(base)) < 1e-2 * base else base
    turn = np.arange(len(table))[:, None] * float(base) ** (-np.arange(half) / half)
    right = np.allclose(table[:, :half], np.cos(turn), atol=1e-4)
    right = (
        right
        and np.allclose(table[:, half:], table[:, :half])
        and np.allclose(other[:, half:], other[:, :half])
    )
    return float(base) if right and np.allclose(other[:, :half], np.sin(turn), atol=1e-4) else None
