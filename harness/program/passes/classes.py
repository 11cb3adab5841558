"""Rewrite rules that move operations out of sums over the classes of a classifier.

For example, ``sum(t * (a - b))`` becomes ``sum(t * a) - b * sum(t)`` if ``b`` is equal for all
classes of a row. The loss and its gradient then compute ``b`` once for each row, not for each
class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.program.dims import ONE, Attributes
from harness.program.passes.rewriter import Rewriter, Rule


def _take_entry(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Subtract after the selection of an entry: ``(a - b)[i]`` becomes ``a[i] - b``, if each row of
    ``a`` has a single value of ``b``."""
    value, indices = inputs
    node = g.node(value, "add", "subtract", "multiply", "divide")
    if node is None or g.uses[value] > 1:
        return None
    operands = []
    for operand in node.inputs:
        shape = g.shape(operand)
        if shape == g.shape(value):
            operands.append(g.emit("take_along_axis", operand, indices))
        elif not shape or (shape[-1] == ONE and len(shape) == len(g.shape(value))):
            operands.append(operand)
        else:
            return None
    return g.apply(node.op, tuple(operands), node.attributes)


def _weighted_sum(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Move ``b`` out of a sum: ``sum(t * (a - b))`` becomes ``sum(t * a) - b * sum(t)``, if each
    row of ``a`` has a single value of ``b``."""
    product = g.node(inputs[0], "multiply")
    last = g.rank(inputs[0]) - 1
    if product is None or attributes["axis"] != (last,):
        return None
    for weight, value in (product.inputs, product.inputs[::-1]):
        node = g.node(value, "subtract")
        if node is None or g.uses[value] > 1 or g.shape(weight) != g.shape(value):
            continue
        a, b = node.inputs
        if g.shape(a) != g.shape(value) or g.shape(b) != (*g.shape(value)[:-1], ONE):
            continue
        total = g.emit("sum", g.emit("multiply", weight, a), **attributes)
        weights = g.emit("sum", weight, **attributes)
        subtrahend = b if attributes["keepdims"] else g.emit("squeeze", b, axis=last)
        return g.emit("subtract", total, g.emit("multiply", subtrahend, weights))
    return None


def _common_factor(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Factor out a constant c: ``c * a + r * b`` becomes ``c * (a + (r / c) * b)``, if each row has
    a single value of ``r``. The division is then computed once for each row."""
    for scaled, weighted in (inputs, inputs[::-1]):
        left, right = g.node(scaled, "multiply"), g.node(weighted, "multiply")
        if left is None or right is None or any(g.uses[i] > 1 for i in inputs):
            continue
        for c, a in (left.inputs, left.inputs[::-1]):
            for r, b in (right.inputs, right.inputs[::-1]):
                number = g.number(c)
                if number is None or number == 0 or g.rank(c) or not _by_row(g, r, b):
                    continue
                if g.shape(a) == g.shape(b):
                    row_factor = g.emit("multiply", g.constant(1 / number), r)
                    return g.emit(
                        "multiply", c, g.emit("add", a, g.emit("multiply", row_factor, b))
                    )
    return None


def _by_row(g: Rewriter, value: int, like: int) -> bool:
    """Return whether ``value`` has a single entry for each row of the value ``like``, i.e. its last
    axis has length 1."""
    return g.rank(like) > 0 and g.shape(value) == (*g.shape(like)[:-1], ONE) != g.shape(like)


def _scaled(g: Rewriter, value: int) -> tuple[int, int] | None:
    """Return (c, x) if a value is ``c * x`` with a constant number c; otherwise None."""
    node = g.node(value, "multiply")
    for c, rest in (node.inputs, node.inputs[::-1]) if node is not None else ():
        if g.number(c) is not None and g.rank(c) == 0:
            return c, rest
    return None


def _scaled_rows(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Multiply the weight instead of the data by a constant c: ``(c * x) @ W`` becomes ``x @ (c *
    W)``, if the weight W has fewer entries than x."""
    scaled = _scaled(g, inputs[0])
    if scaled is None or g.rank(inputs[1]) != 2 or g.count(inputs[1]) >= g.count(inputs[0]):
        return None
    return g.emit("matmul", scaled[1], g.emit("multiply", scaled[0], inputs[1]))


def _scaled_product(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Move a constant factor c out of a ``sum`` or a ``tensordot``, because the result has fewer
    entries than the operand: ``sum(c * x)`` becomes ``c * sum(x)``."""
    for position, value in enumerate(inputs):
        scaled = _scaled(g, value)
        if scaled is not None:
            rest = (*inputs[:position], scaled[1], *inputs[position + 1 :])
            op = "tensordot" if len(inputs) == 2 else "sum"
            return g.emit("multiply", scaled[0], g.apply(op, rest, attributes))
    return None


RULES: Mapping[str, Sequence[Rule]] = {"take_along_axis": (_take_entry,), "sum": (_weighted_sum,)}
# Rules that move factors, used only after the gradient has been derived.
FACTORS: Mapping[str, Sequence[Rule]] = {
    "add": (_common_factor,),
    "matmul": (_scaled_rows,),
    "tensordot": (_scaled_product,),
    "sum": (_scaled_product,),
}
