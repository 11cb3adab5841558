"""Sums of like products, as of a layer used twice: ``a.T @ x + b.T @ y -> [a; b].T @ [x; y]``.

The joined rows are made where they are joined, so that joining costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.program.ir import Node
from harness.program.passes.reshapes import parts_of
from harness.program.passes.rewriter import Rewriter, Rule

Attributes = Mapping[str, Any]


def _pair(g: Rewriter, inputs: tuple[int, ...], op: str) -> tuple[Node, Node] | None:
    """Two terms that nothing else reads, made alike outside of all loops."""
    a, b = (g.node(i, op) for i in inputs)
    if a is None or b is None or a.attributes != b.attributes or inputs[0] == inputs[1]:
        return None
    if any(g.uses[i] > 1 or g.depth(i) for i in inputs):
        return None
    if any(g.shape(x)[1:] != g.shape(y)[1:] for x, y in zip(a.inputs, b.inputs, strict=True)):
        return None
    return (a, b) if _age(g, a.inputs[0]) <= _age(g, b.inputs[0]) else (b, a)


def _age(g: Rewriter, value: int) -> int:
    """When a value, or the first of those in a row, was made."""
    return min(g.ages.get(part, 0) for part in parts_of(g, value, 0))


def _made_in_place(g: Rewriter, value: int) -> bool:
    """Whether a row costs nothing: it is a slice of another, or the only one of its values.

    A value can be made in the place of one row only; it is copied into a second.
    """
    node = g.node(value, "concat")
    if node is None:
        return True
    return not any(g.uses[j] for part in node.inputs for j in g.joins[part] if j != value)


def _products(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``a.T @ x + b.T @ y -> [a; b].T @ [x; y]``."""
    pair = _pair(g, inputs, "tensordot")
    if pair is None or any(0 not in axes for axes in pair[0].attributes["axes"]):
        return None
    left, right = pair[0].attributes["axes"]
    if left.index(0) != right.index(0):
        return None
    lefts, rights = _rows_of(g, pair)
    if not _made_in_place(g, lefts):
        return None
    return g.emit("tensordot", lefts, rights, **pair[0].attributes)


def _rows(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``sum(x) + sum(y) -> sum([x; y])``, over rows."""
    pair = _pair(g, inputs, "sum")
    if pair is None or 0 not in pair[0].attributes["axis"] or pair[0].attributes["keepdims"]:
        return None
    # Gradients are made from the last use of a weight to the first, which products put in order.
    (rows,) = _rows_of(g, pair[::-1])
    return g.emit("sum", rows, **pair[0].attributes)


def _rows_of(g: Rewriter, pair: tuple[Node, Node]) -> list[int]:
    operands = zip(pair[0].inputs, pair[1].inputs, strict=True)
    return [g.emit("concat", *both, axis=0) for both in operands]


def _factor(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``c * x + c * y -> c * (x + y)``."""
    a, b = (g.node(i, "multiply") for i in inputs)
    if a is None or b is None or any(g.uses[i] > 1 for i in inputs):
        return None
    for common, rest in (a.inputs, a.inputs[::-1]):
        for other, more in (b.inputs, b.inputs[::-1]):
            if common == other and g.number(common) is not None and g.rank(common) == 0:
                return g.emit("multiply", common, g.emit("add", rest, more))
    return None


def _part_of_joined(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Row cut out of a longer one: ``[a, b] -> [a, b, c][:2]``."""
    axis, count = attributes["axis"], len(inputs)
    for value in g.joins[inputs[0]]:
        node = g.made[value]
        if node.attributes["axis"] != axis or g.depth(value) != max(map(g.depth, inputs)):
            continue
        first = node.inputs.index(inputs[0])
        if node.inputs[first : first + count] != inputs or count == len(node.inputs):
            continue
        lengths = [g.shape(v)[axis] for v in node.inputs]
        start = sum(lengths[1:first], lengths[0]) if first else lengths[0] * 0
        stop = sum(lengths[first + 1 : first + count], start + lengths[first])
        return g.emit("slice", value, axis=axis, start=start, stop=stop)
    return None


RULES: Mapping[str, Sequence[Rule]] = {
    "add": (_products, _rows, _factor),
    "concat": (_part_of_joined,),
}
