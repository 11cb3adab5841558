"""Derivative rules: each rule computes cotangents of inputs from the cotangent of the output.

A rule calls ``r.add`` with the vector-Jacobian product for every float input. ``r.read(v)`` makes
the forward value ``v`` readable in the backward pass. :data:`.reverse.CONSTANT` lists the
operations without a derivative. A fused operation has a rule if a program can contain it before
differentiation. The formulas for matrix products are from Giles, "An extended collection of matrix
derivative results" (2008).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi, sqrt

from harness.program.autodiff.reverse import Reverse, Rule
from harness.program.axes import inverse
from harness.program.dims import ONE, Dim, Shape
from harness.program.ir import Node

# The derivative of erf at 0.
SLOPE = 2 / sqrt(pi)
# A rule for a node whose only differentiable operand is the first; returns its cotangent.
FirstOperandRule = Callable[[Reverse, Node, int], int]


def _to_first(cotangent_of: FirstOperandRule) -> Rule:
    return lambda r, node, g: r.add(node.inputs[0], cotangent_of(r, node, g))


def _operand_shape(r: Reverse, node: Node) -> Shape:
    return r.builder.types[node.inputs[0]].shape


def _tanh(r: Reverse, node: Node, g: int) -> None:
    y = r.read(node.output)
    if r.offers("tanh_gradient"):
        r.add(node.inputs[0], r.emit("tanh_gradient", g, y))
        return
    slope = r.emit("subtract", r.constant(1.0), r.emit("multiply", y, y))
    r.add(node.inputs[0], r.emit("multiply", g, slope))


def _erf(r: Reverse, node: Node, g: int) -> int:
    """Return the cotangent of erf's operand x: ``g * 2 / sqrt(pi) * exp(-x * x)``."""
    x = r.read(node.inputs[0])
    bell = r.emit("exp", r.emit("negative", r.emit("multiply", x, x)))
    return r.emit("multiply", g, r.emit("multiply", r.constant(SLOPE), bell))


def _cos(r: Reverse, node: Node, g: int) -> int:
    return r.emit("multiply", g, r.emit("negative", r.emit("sin", r.read(node.inputs[0]))))


def _add(r: Reverse, node: Node, g: int) -> None:
    r.add(node.inputs[0], g)
    r.add(node.inputs[1], g)


def _subtract(r: Reverse, node: Node, g: int) -> None:
    r.add(node.inputs[0], g)
    if r.active(node.inputs[1]):
        r.add(node.inputs[1], r.emit("negative", g))


def _multiply(r: Reverse, node: Node, g: int) -> None:
    a, b = node.inputs
    if r.active(a):
        r.add(a, r.emit("multiply", g, r.read(b)))
    if r.active(b):
        r.add(b, r.emit("multiply", g, r.read(a)))


def _divide(r: Reverse, node: Node, g: int) -> None:
    a, b = node.inputs
    quotient = r.emit("divide", g, r.read(b))
    r.add(a, quotient)
    if r.active(b):
        r.add(b, r.emit("negative", r.emit("multiply", quotient, r.read(node.output))))


def _power(r: Reverse, node: Node, g: int) -> None:
    a, b = node.inputs
    if r.active(a):
        below = r.emit("power", r.read(a), r.emit("subtract", r.read(b), r.constant(1.0)))
        r.add(a, r.emit("multiply", g, r.emit("multiply", r.read(b), below)))
    if r.active(b):
        rate = r.emit("multiply", r.read(node.output), r.emit("log", r.read(a)))
        r.add(b, r.emit("multiply", g, rate))


def _where(r: Reverse, node: Node, g: int) -> None:
    condition, a, b = node.inputs
    zero = r.constant(0.0)
    if r.active(a):
        r.add(a, r.emit("where", r.read(condition), g, zero))
    if r.active(b):
        r.add(b, r.emit("where", r.read(condition), zero, g))


def _windowed(transpose: str) -> Rule:
    """Return the derivative rule of ``windows`` or ``overlap_add``. Each of these linear operations
    is the transpose of the other, so ``transpose``, which computes the cotangent, is the name of
    the other operation."""

    def rule(r: Reverse, node: Node, g: int) -> None:
        (value,), attributes = node.inputs, dict(node.attributes)
        shape = r.builder.types[value].shape
        attributes["length"] = tuple(shape[axis] for axis in attributes["axes"])
        attributes.pop("lowest", None)
        if transpose == "windows":
            attributes["lowest"] = False
        r.add(value, r.emit(transpose, g, **attributes))

    return rule


def _concat(r: Reverse, node: Node, g: int) -> None:
    axis, start = node.attributes["axis"], Dim()
    for part in node.inputs:
        stop = start + r.builder.types[part].shape[axis]
        if r.active(part):
            r.add(part, r.builder.slice_axis(g, axis, start, stop))
        start = stop


def _slice(r: Reverse, node: Node, g: int) -> None:
    start, stop = Dim.of(node.attributes["start"]), Dim.of(node.attributes["stop"])
    r.add_slice(node.inputs[0], node.attributes["axis"], start, stop, g)


def _take(r: Reverse, node: Node, g: int) -> None:
    table, indices = node.inputs
    rows = r.builder.types[table].shape[0]
    r.add(table, r.emit("segment_sum", g, r.read(indices), rows=rows))


def _cumulative_sum(r: Reverse, node: Node, g: int) -> None:
    """Compute the cotangent of the operand: sum the result's cotangent from the end of the axis to
    the start, because each entry affects the sum at its own position and all later sums."""
    last = len(r.builder.types[node.output].shape) - 1
    sums = r.emit("cumulative_sum", r.emit("flip", g, axis=last))
    r.add(node.inputs[0], r.emit("flip", sums, axis=last))


def _take_along_axis(r: Reverse, node: Node, g: int) -> None:
    table, indices = node.inputs
    shape = r.builder.types[indices].shape
    last = len(shape) - 1
    classes = r.builder.types[table].shape[-1]
    if r.is_computed_by(indices, "argsort"):
        # The indices are a permutation of the row; their argsort is the inverse permutation.
        undone = r.emit("argsort", r.emit("astype", r.read(indices)))
        r.add(table, r.emit("take_along_axis", g, undone))
    elif shape[-1] == ONE:
        index = r.emit("squeeze", r.read(indices), axis=last)
        r.add(table, r.emit("multiply", g, r.emit("one_hot", index, classes=classes)))
    else:
        chosen = r.emit("one_hot", r.read(indices), classes=classes)
        each = r.emit("multiply", r.emit("expand_dims", g, axis=last + 1), chosen)
        r.add(table, r.emit("sum", each, axis=(last,), keepdims=False))


def _sum(r: Reverse, node: Node, g: int) -> None:
    if not node.attributes["keepdims"]:
        for axis in sorted(node.attributes["axis"]):
            g = r.emit("expand_dims", g, axis=axis)
    r.add(node.inputs[0], r.emit("broadcast_to", g, shape=_operand_shape(r, node)))


def _max(r: Reverse, node: Node, g: int) -> None:
    """Compute the cotangent of a maximum's operand. Entries that tie for the maximum get equal
    shares, as in torch.amax, jax.numpy.max and TensorFlow's reduce_max."""
    x, maximum, axes = r.read(node.inputs[0]), r.read(node.output), node.attributes["axis"]
    if not node.attributes["keepdims"]:
        for axis in sorted(axes):
            g, maximum = (r.emit("expand_dims", value, axis=axis) for value in (g, maximum))
    zero, top = r.constant(0.0), r.emit("equal", x, maximum)
    tied = r.emit("where", top, r.constant(1.0), zero)
    share = r.emit("divide", g, r.emit("sum", tied, axis=axes, keepdims=True))
    r.add(node.inputs[0], r.emit("where", top, share, zero))


def _matmul(r: Reverse, node: Node, g: int) -> None:
    a, b = node.inputs
    types = r.builder.types
    if r.active(a):
        rank = len(types[b].shape)
        axes = (*range(rank - 2), rank - 1, rank - 2)
        r.add(a, r.emit("matmul", g, r.emit("permute_dims", r.read(b), axes=axes)))
    if not r.active(b):
        return
    if len(types[b].shape) == 2:
        r.add_product(b, a, g)
    else:
        rank = len(types[a].shape)
        axes = (*range(rank - 2), rank - 1, rank - 2)
        r.add(b, r.emit("matmul", r.emit("permute_dims", r.read(a), axes=axes), g))


def _sigmoid(r: Reverse, node: Node, g: int) -> None:
    y = r.read(node.output)
    if r.offers("sigmoid_gradient"):
        r.add(node.inputs[0], r.emit("sigmoid_gradient", g, y))
    else:
        slope = r.emit("multiply", y, r.emit("subtract", r.constant(1.0), y))
        r.add(node.inputs[0], r.emit("multiply", g, slope))


def _relu(r: Reverse, node: Node, g: int) -> None:
    y = r.read(node.output)
    if r.offers("relu_gradient"):
        r.add(node.inputs[0], r.emit("relu_gradient", g, y))
    else:
        zero = r.constant(0.0)
        r.add(node.inputs[0], r.emit("where", r.emit("less_equal", y, zero), zero, g))


def _clip(r: Reverse, node: Node, g: int) -> None:
    """Pass the cotangent ``g`` to the operand if the result lies strictly between the bounds of
    ``clip``; otherwise pass 0."""
    y, bounds = r.read(node.output), node.attributes
    if r.offers("clip_gradient"):
        r.add(node.inputs[0], r.emit("clip_gradient", g, y, **bounds))
        return
    zero, low, high = (r.constant(v) for v in (0.0, bounds["low"], bounds["high"]))
    above = r.emit("where", r.emit("less_equal", y, low), zero, g)
    r.add(node.inputs[0], r.emit("where", r.emit("less_equal", high, y), zero, above))


FIRST_OPERAND: Mapping[str, FirstOperandRule] = {
    "exp": lambda r, node, g: r.emit("multiply", g, r.read(node.output)),
    "log": lambda r, node, g: r.emit("divide", g, r.read(node.inputs[0])),
    "sqrt": lambda r, node, g: r.emit(
        "divide", r.emit("multiply", g, r.constant(0.5)), r.read(node.output)
    ),
    "erf": _erf,
    "sin": lambda r, node, g: r.emit("multiply", g, r.emit("cos", r.read(node.inputs[0]))),
    "cos": _cos,
    "negative": lambda r, node, g: r.emit("negative", g),
    "permute_dims": lambda r, node, g: r.emit(
        "permute_dims", g, axes=inverse(node.attributes["axes"])
    ),
    "broadcast_to": lambda r, node, g: g,
    "reshape": lambda r, node, g: r.emit("reshape", g, shape=_operand_shape(r, node)),
    "expand_dims": lambda r, node, g: r.emit("squeeze", g, axis=node.attributes["axis"]),
    "squeeze": lambda r, node, g: r.emit("expand_dims", g, axis=node.attributes["axis"]),
    "flip": lambda r, node, g: r.emit("flip", g, axis=node.attributes["axis"]),
    "segment_sum": lambda r, node, g: r.emit("take", g, r.read(node.inputs[1])),
}
RULES: Mapping[str, Rule] = {
    **{op: _to_first(cotangent_of) for op, cotangent_of in FIRST_OPERAND.items()},
    "tanh": _tanh,
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "power": _power,
    "where": _where,
    "windows": _windowed("overlap_add"),
    "overlap_add": _windowed("windows"),
    "concat": _concat,
    "slice": _slice,
    "take": _take,
    "take_along_axis": _take_along_axis,
    "cumulative_sum": _cumulative_sum,
    "sum": _sum,
    "max": _max,
    "matmul": _matmul,
    "sigmoid": _sigmoid,
    "relu": _relu,
    "clip": _clip,
}
