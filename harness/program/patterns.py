"""Recognition of named functions, e.g. relu, in compositions of primitives.

Plans run such a composition as one fused operation, and exported source code calls the function.
Each function here gets the inputs of a composition's last node, and ``g``, which finds the node
that computes a value. It returns the name, the operand and the attributes of the named function, or
None if there is no match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.program.ir import Node, Type

Match = tuple[str, int, dict[str, Any]]


class NodeLookup(Protocol):
    """An interface to find the nodes that compute the inputs of a node."""

    def node(self, value: int, *ops: str) -> Node | None:
        """Return the node that computes a value, if its operation is one of ``ops``; else None."""

    def number(self, value: int) -> float | None:
        """Return the number to which all entries of a value are known to be equal, or None."""

    def rank(self, value: int) -> int:
        """Return the number of axes of a value."""


@dataclass
class NodesByValue:
    """The usual :class:`NodeLookup`. ``types`` maps a value to its type, and ``made`` maps it to
    the node that computes it."""

    types: Mapping[int, Type]
    made: Mapping[int, Node]

    def node(self, value: int, *ops: str) -> Node | None:
        """Return the node that computes a value, if its operation is one of ``ops``; else None."""
        node = self.made.get(value)
        return node if node is not None and node.op in ops else None

    def number(self, value: int) -> float | None:
        """Return the number of a constant; None for other values."""
        node = self.node(value, "constant")
        return None if node is None else float(node.attributes["value"])

    def rank(self, value: int) -> int:
        """Return the number of axes of a value."""
        return len(self.types[value].shape)


def relu(g: NodeLookup, inputs: Sequence[int]) -> Match | None:
    """Match the primitives of a relu: ``where(x <= 0, 0, x)``. Return ``relu`` and x; None if there
    is no match."""
    bound = _one_sided_limit(g, inputs)
    if bound is None or bound[1] != 0 or not bound[2]:
        return None
    return "relu", bound[0], {}


def clip(g: NodeLookup, inputs: Sequence[int]) -> Match | None:
    """Match the primitives of a clip to the range from l to h: ``where(h <= y, h, y)`` with ``y =
    where(x <= l, l, x)``. Return ``clip``, x and the range; None if there is no match."""
    outer = _one_sided_limit(g, inputs)
    limited = None if outer is None or outer[2] else g.node(outer[0], "relu", "where")
    if outer is None or limited is None:
        return None
    if limited.op == "relu":
        return "clip", limited.inputs[0], {"low": 0.0, "high": outer[1]}
    inner = _one_sided_limit(g, limited.inputs)
    if inner is None or not inner[2]:
        return None
    return "clip", inner[0], {"low": inner[1], "high": outer[1]}


def sigmoid(g: NodeLookup, inputs: Sequence[int]) -> Match | None:
    """Match the primitives of a sigmoid: ``0.5 + 0.5 * tanh(0.5 * x)``. Return ``sigmoid`` and x;
    None if there is no match."""
    for a, b in (inputs, inputs[::-1]):
        half = _double(g, b) if g.number(a) == 0.5 else None
        tanh = g.node(half, "tanh") if half is not None else None
        x = _double(g, tanh.inputs[0]) if tanh is not None else None
        if x is not None:
            return "sigmoid", x, {}
    return None


def softmax(g: NodeLookup, inputs: Sequence[int]) -> Match | None:
    """Match the primitives of a softmax: ``e / sum(e)`` with ``e = exp(x - max(x))``. Return
    ``softmax`` and x; None if there is no match."""
    return _over_last_axis(g, "softmax", softmax_along(g, inputs))


def softmax_along(g: NodeLookup, inputs: Sequence[int]) -> Match | None:
    """Match the primitives of a softmax over any axis, as in :func:`softmax`. Return
    ``softmax_along``, x and the axis; None if there is no match."""
    exp, total = g.node(inputs[0], "exp"), g.node(inputs[1], "sum")
    if exp is None or total is None or total.inputs != (exp.output,):
        return None
    x = _minus_maximum(g, exp.inputs[0], total)
    return None if x is None else ("softmax_along", x, {"axis": total.attributes["axis"][0]})


def log_softmax(g: NodeLookup, inputs: Sequence[int]) -> Match | None:
    """Match the primitives of a log-softmax: ``y - log(sum(exp(y)))`` with ``y = x - max(x)``.
    Return ``log_softmax`` and x; None if there is no match."""
    return _over_last_axis(g, "log_softmax", log_softmax_along(g, inputs))


def log_softmax_along(g: NodeLookup, inputs: Sequence[int]) -> Match | None:
    """Match the primitives of a log-softmax over any axis, as in :func:`log_softmax`. Return
    ``log_softmax_along``, x and the axis; None if there is no match."""
    log = g.node(inputs[1], "log")
    total = None if log is None else g.node(log.inputs[0], "sum")
    exp = None if total is None else g.node(total.inputs[0], "exp")
    if total is None or exp is None or exp.inputs != (inputs[0],):
        return None
    x = _minus_maximum(g, inputs[0], total)
    return None if x is None else ("log_softmax_along", x, {"axis": total.attributes["axis"][0]})


def _over_last_axis(g: NodeLookup, name: str, match: Match | None) -> Match | None:
    """Return a match over the last axis with another name and no axis; None for other matches."""
    last = match is not None and match[2]["axis"] == g.rank(match[1]) - 1
    return (name, match[1], {}) if match is not None and last else None


def _one_sided_limit(g: NodeLookup, inputs: Sequence[int]) -> tuple[int, float, bool] | None:
    """Return ``(x, bound, True)`` for ``where(x <= bound, bound, x)``, a lower bound. Return ``(x,
    bound, False)`` for ``where(bound <= x, bound, x)``, an upper bound; otherwise None."""
    compared, bound, x = g.node(inputs[0], "less_equal"), g.number(inputs[1]), inputs[2]
    if compared is None or bound is None:
        return None
    for position in (0, 1):
        if compared.inputs[position] == x and g.number(compared.inputs[1 - position]) == bound:
            return x, bound, position == 0
    return None


def _double(g: NodeLookup, value: int) -> int | None:
    """Return x if ``value`` is the product ``0.5 * x``, otherwise None."""
    node = g.node(value, "multiply")
    for a, b in (node.inputs, node.inputs[::-1]) if node is not None else ():
        if g.number(a) == 0.5:
            return b
    return None


def _minus_maximum(g: NodeLookup, value: int, total: Node) -> int | None:
    """Return x if ``value`` is ``x - max(x)`` along the only axis of a sum, which keeps the axis;
    otherwise None."""
    node = g.node(value, "subtract")
    if node is None or len(total.attributes["axis"]) != 1 or not total.attributes["keepdims"]:
        return None
    stopped = g.node(node.inputs[1], "stop_gradient")  # before differentiation
    maximum = g.node(node.inputs[1] if stopped is None else stopped.inputs[0], "max")
    if maximum is None or maximum.inputs != node.inputs[:1]:
        return None
    same = all(maximum.attributes[name] == total.attributes[name] for name in ("axis", "keepdims"))
    return node.inputs[0] if same else None
