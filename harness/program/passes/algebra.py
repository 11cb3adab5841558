"""Rewrite rules of arithmetic: compute constants in advance, and drop operations without effect,
e.g. ``1 * x -> x``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from harness.program.dims import Attributes, Dim
from harness.program.infer import broadcast_shapes
from harness.program.passes.rewriter import Rewriter, Rule
from harness.program.primitives import COMPARISONS


def common_shape(g: Rewriter, inputs: Sequence[int]) -> tuple[Dim, ...]:
    """Return the shape to which the values ``inputs`` broadcast."""
    return broadcast_shapes("", tuple(g.shape(i) for i in inputs))


def _fold_constants(op: str) -> Rule:
    """Return the rule that replaces an operation on constants by its result."""
    function: Callable[..., Any] = getattr(np, op)

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        numbers = []
        for value in inputs:
            number = g.number(value)
            if number is None:
                return None
            numbers.append(np.float64(number))
        with np.errstate(all="ignore"):
            result = float(function(*numbers))
        return g.full(result, common_shape(g, inputs))

    return rule


def _drop_broadcast(op: str) -> Rule:
    """Return the rewrite rule that drops a redundant broadcast of an operand of ``op``:
    ``broadcast(a) + b -> a + b``, if the shape of the result stays the same."""

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        for position, value in enumerate(inputs):
            node = g.node(value, "broadcast_to", "expand_dims")
            if node is None or (node.op == "expand_dims" and node.attributes["axis"] != 0):
                continue
            narrow = (*inputs[:position], node.inputs[0], *inputs[position + 1 :])
            if common_shape(g, narrow) == common_shape(g, inputs):
                return g.apply(op, narrow, attributes)
        return None

    return rule


def _same_shape(g: Rewriter, value: int, inputs: Sequence[int]) -> bool:
    return g.shape(value) == common_shape(g, inputs)


def _add(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Simplify an addition: ``0 + x`` becomes ``x``, and ``-a + b`` becomes ``b - a``. Return the
    new value; None if neither fits."""
    for a, b in (inputs, inputs[::-1]):
        if g.number(a) == 0 and _same_shape(g, b, inputs):
            return b
        negative = g.node(a, "negative")
        if negative is not None:
            return g.emit("subtract", b, negative.inputs[0])
    return None


def _blend(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Rewrite a weighted mean with one product less: ``z * a + (1 - z) * b`` becomes ``b + z * (a -
    b)``. The new expression also has a gradient with fewer operations."""
    left, right = (g.node(i, "multiply") for i in inputs)
    if left is None or right is None or any(g.uses[i] > 1 for i in inputs):
        return None
    for one, other in ((left, right), (right, left)):
        for z, a in (one.inputs, one.inputs[::-1]):
            for rest, b in (other.inputs, other.inputs[::-1]):
                node = g.node(rest, "subtract")
                if node is None or node.inputs[1] != z or g.number(node.inputs[0]) != 1:
                    continue
                if g.shape(a) == g.shape(b) == common_shape(g, inputs):
                    return g.emit("add", b, g.emit("multiply", z, g.emit("subtract", a, b)))
    return None


def _subtract(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Simplify a subtraction: ``x - 0`` becomes ``x``, ``0 - x`` becomes ``-x``, and ``a - (-b)``
    becomes ``a + b``. Return the new value; None if nothing fits."""
    a, b = inputs
    if g.number(b) == 0 and _same_shape(g, a, inputs):
        return a
    if g.number(a) == 0 and _same_shape(g, b, inputs):
        return g.emit("negative", b)
    negative = g.node(b, "negative")
    if negative is not None:
        return g.emit("add", a, negative.inputs[0])
    return None


def _negative(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Simplify a negation: ``-(-x)`` becomes ``x``, ``-(a - b)`` becomes ``b - a``, and ``-(c *
    x)`` with a constant c becomes ``(-c) * x``. Return the new value; None if nothing fits."""
    node = g.node(inputs[0], "negative", "multiply", "subtract")
    if node is None:
        return None
    if node.op == "negative":
        return node.inputs[0]
    if node.op == "subtract" and g.uses[inputs[0]] <= 1:
        return g.emit("subtract", *node.inputs[::-1])
    if node.op == "multiply":
        for a, b in (node.inputs, node.inputs[::-1]):
            number = g.number(a)
            if number is not None:
                return g.emit("multiply", g.full(-number, g.shape(a)), b)
    return None


def _multiply(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Simplify a product with constants c and d: ``1 * x`` becomes ``x``, ``c * (-x)`` becomes
    ``(-c) * x``, and ``c * (d * x)`` becomes ``(c * d) * x``. Return the new value; None if nothing
    fits."""
    for a, b in (inputs, inputs[::-1]):
        number = g.number(a)
        if number is None:
            continue
        if number == 1 and _same_shape(g, b, inputs):
            return b
        if number == -1 and _same_shape(g, b, inputs):
            return g.emit("negative", b)
        inner = g.node(b, "multiply", "negative")
        if inner is None:
            continue
        if inner.op == "negative":
            return g.emit("multiply", g.full(-number, g.shape(a)), inner.inputs[0])
        for c, d in (inner.inputs, inner.inputs[::-1]):
            factor = g.number(c)
            if factor is not None and _same_shape(g, d, (a, c, d)):
                return g.emit("multiply", g.constant(number * factor), d)
    return None


def _product_of_multiples(
    g: Rewriter, inputs: tuple[int, ...], attributes: Attributes
) -> int | None:
    """Move constants c and d out of a product: ``(c * x) * (d * x)`` becomes ``(c * d) * (x * x)``.
    Return the new value; None if the product is different."""
    (c, x), (d, y) = (_multiple(g, i) for i in inputs)
    if x != y or inputs == (x, y) or not 1e-30 < abs(c * d) < 1e30:
        return None
    return g.emit("multiply", g.constant(c * d), g.emit("multiply", x, x))


def _multiple(g: Rewriter, value: int) -> tuple[float, int]:
    """Return (c, x) if a value is ``c * x`` with a constant c; otherwise (1, value)."""
    node = g.node(value, "multiply")
    for a, b in (node.inputs, node.inputs[::-1]) if node is not None else ():
        factor = g.number(a)
        if factor is not None and g.shape(b) == g.shape(value):
            return factor, b
    return 1.0, value


def _divide(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Replace the division by a constant c by a multiplication: ``x / c`` becomes ``(1 / c) * x``.
    Return the new value; None if c is not constant or 1 / c not finite."""
    number = g.number(inputs[1])
    if number is None or number == 0 or not isfinite(1 / number):
        return None
    return g.emit("multiply", inputs[0], g.full(1 / number, g.shape(inputs[1])))


def _power(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Replace a power with the exponent 1 or 2: ``x ** 1`` becomes ``x``, and ``x ** 2`` becomes
    ``x * x``. Return None for other exponents."""
    base, exponent = inputs
    if not _same_shape(g, base, inputs):
        return None
    if g.number(exponent) == 1:
        return base
    if g.number(exponent) == 2:
        return g.emit("multiply", base, base)
    return None


def _extent(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    counts = [dim.resolve(g.sizes) for dim in attributes["dims"]]
    return g.constant(float(np.prod(counts, dtype=np.int64)))


def _sum(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Move constants and signs out of a sum: ``sum(c * x)`` becomes ``c * sum(x)``. The result of
    the sum has fewer entries than x, so the multiplication takes less time."""
    node = g.node(inputs[0], "negative", "multiply", "sum")
    if node is None or g.uses[inputs[0]] > 1:
        return None
    if node.op == "negative":
        return g.emit("negative", g.emit("sum", node.inputs[0], **attributes))
    if node.op == "sum":
        return _sum_of_sum(g, node.inputs[0], node.attributes, attributes)
    for a, b in (node.inputs, node.inputs[::-1]):
        if g.number(a) is not None and g.rank(a) == 0:
            return g.emit("multiply", a, g.emit("sum", b, **attributes))
    return None


def _sum_of_sum(g: Rewriter, value: int, first: Attributes, second: Attributes) -> int | None:
    """Rewrite two sums to one sum over the axes of both, e.g. ``sum(sum(x, 1), 0) -> sum(x, (0,
    1))``. ``value`` is the inner operand; ``first`` and ``second`` are the attributes of the inner
    and the outer sum."""
    if first["keepdims"] or second["keepdims"]:
        return None
    remaining = [axis for axis in range(g.rank(value)) if axis not in first["axis"]]
    axes = sorted([*first["axis"], *(remaining[axis] for axis in second["axis"])])
    return g.emit("sum", value, axis=tuple(axes), keepdims=False)


RULES: Mapping[str, Sequence[Rule]] = {
    **{op: (_fold_constants(op),) for op in ("exp", "log", "tanh", "sqrt")},
    **{op: (_drop_broadcast(op),) for op in (*COMPARISONS, "where")},
    "negative": (_fold_constants("negative"), _negative),
    "add": (_fold_constants("add"), _drop_broadcast("add"), _add, _blend),
    "subtract": (_fold_constants("subtract"), _drop_broadcast("subtract"), _subtract),
    "multiply": (
        _fold_constants("multiply"),
        _drop_broadcast("multiply"),
        _multiply,
        _product_of_multiples,
    ),
    "divide": (_fold_constants("divide"), _drop_broadcast("divide"), _divide),
    "power": (_fold_constants("power"), _drop_broadcast("power"), _power),
    "extent": (_extent,),
    "sum": (_sum,),
}
