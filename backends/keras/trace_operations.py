"""The rules that translate operations of ``keras.ops`` into the neutral graph, by class name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from harness.extend.models import Operand, Rules

from .trace_rules import About, Result, Rule, input_shape

OPERATIONS: Rules[Rule] = Rules()
BINARY = {
    "Add": "+",
    "Subtract": "-",
    "Multiply": "*",
    "Divide": "/",
    "TrueDivide": "/",
    "Power": "**",
    "Matmul": "@",
    "Maximum": "maximum",
    "Minimum": "minimum",
}
UNARY = {
    **{n.title(): n for n in ("relu", "sigmoid", "tanh", "exp", "log", "sqrt", "sin", "cos")},
    "Softplus": "softplus",
    "Silu": "silu",
    "Negative": "negative",
    "Absolute": "abs",
    **{n.title(): n for n in ("erf", "floor", "sign")},
}
COMPARISONS = {
    "Greater": ">",
    "GreaterEqual": ">=",
    "Less": "<",
    "LessEqual": "<=",
    "Equal": "==",
    "NotEqual": "!=",
}


@OPERATIONS.of(*BINARY, *COMPARISONS)
def _binary(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    values = [t.operand(a) for a in node.arguments.args]
    if len(values) != 2 or None in values:
        return None
    name = type(node.operation).__name__
    return t.builder.node((BINARY | COMPARISONS)[name], values, about)


@OPERATIONS.of(*UNARY)
def _unary(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return t.builder.node(UNARY[type(node.operation).__name__], inputs, about)


@OPERATIONS.of("Reshape", "ExpandDims", "Squeeze")
def _new_shape(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return t.builder.node("reshape", inputs, about)


@OPERATIONS.of("Transpose")
def _transpose(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    rank = len(about["shape"])
    axes = node.operation.axes or range(rank)[::-1]
    return t.builder.node("permute", inputs, about, axes=[a % rank for a in axes])


@OPERATIONS.of("Square")
def _square(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    return t.builder.node("**", [inputs[0], 2], about)


@OPERATIONS.of("Softmax", "LogSoftmax")
def _softmax(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    name = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[type(node.operation).__name__]
    axis = node.operation.axis
    if not isinstance(axis, int):
        return None
    return t.builder.node(name, inputs, about, axis=axis % len(about["shape"]))


@OPERATIONS.of("Concatenate", "Stack")
def _join(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    operation, shape = node.operation, about["shape"]
    axis = operation.axis % len(shape)
    parts = [t.operand(a) for a in node.arguments.args[0]]
    if type(operation).__name__ == "Stack":
        one = (*shape[:axis], 1, *shape[axis + 1 :])
        parts = [t.builder.node("reshape", [part], about, one) for part in parts]
    return t.builder.node("concat", parts, about, axis=axis)


@OPERATIONS.of("GetItem")
def _item(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    """Add the slices, the selections and the new axes of ``x[...]``."""
    value, key = inputs[0], node.arguments.args[1]
    keys = list(key) if isinstance(key, list | tuple) else [key]
    if not all(k in (None, ...) or isinstance(k, int | slice) for k in keys):
        return None
    keys += [] if ... in keys else [...]
    place = keys.index(...)
    whole = len(input_shape(t, node)) - sum(k not in (None, ...) for k in keys)
    keys[place : place + 1] = [slice(None)] * whole
    axis = 0
    for k in keys:
        if isinstance(k, int):
            value = t.builder.select(value, axis, k, about)
        elif k is not None:
            value = _cut(t, value, axis, k, about)
            axis += 1
    return t.builder.node("reshape", [value], about) if None in keys else value


def _cut(t: Any, value: Operand, axis: int, part: slice, about: About) -> Operand:
    """Add a slice of an axis. A slice with a negative step is a slice of the reversed axis."""
    length = t.builder.shape_of(value)[axis]
    start, stop, step = part.indices(length)
    if step < 0:
        value = t.builder.cut(value, axis, (length - 1, -1, -1), about)
        start, stop, step = length - 1 - start, length - 1 - stop, -step
    return t.builder.cut(value, axis, (start, stop, step), about)


@OPERATIONS.of("Split", "Unstack")
def _pieces(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> list[Operand]:
    operation, shape = node.operation, input_shape(t, node)
    axis = operation.axis % len(shape)
    if type(operation).__name__ == "Unstack":
        return [t.builder.select(inputs[0], axis, k, about) for k in range(shape[axis])]
    cuts = operation.indices_or_sections
    if isinstance(cuts, int):
        cuts = range(shape[axis] // cuts, shape[axis], shape[axis] // cuts)
    ends = [0, *(int(n) for n in cuts), shape[axis]]
    return [t.builder.cut(inputs[0], axis, (*pair, 1), about) for pair in pairwise(ends)]


@OPERATIONS.of("Mean", "Sum", "Max", "Var", "Any")
def _reduce(t: Any, node: Any, inputs: Sequence[Operand], about: About) -> Result:
    operation, rank = node.operation, len(input_shape(t, node))
    axis = operation.axis
    axes = list(range(rank)) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    name = type(operation).__name__.lower()
    settings = {"axis": sorted(a % rank for a in axes), "keepdims": bool(operation.keepdims)}
    if name != "any":
        return t.builder.node(name, inputs, about, **settings)
    numbers = t.builder.node("cast", inputs, about, input_shape(t, node), "float")
    largest = t.builder.node("max", [numbers], about, kind="float", **settings)
    return t.builder.node(">", [largest, 0], about)
