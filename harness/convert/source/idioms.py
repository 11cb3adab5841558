"""Compositions of primitives that every framework has a name for, found in a list of nodes.

Each is a node of its own op: ``relu``, ``clip``, ``sigmoid``, ``softmax``, ``log_softmax``,
``mean`` and ``select`` (one place along an axis, which is dropped).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.program.dims import Dim
from harness.program.ir import Block, Node, Type, needed_nodes

Found = tuple[str, int, dict[str, Any]]


@dataclass
class Idioms:
    """The nodes met so far, by the values that they make, and values that are others."""

    types: Mapping[int, Type]
    names: dict[int, str]
    made: dict[int, Node] = field(default_factory=dict)
    same: dict[int, int] = field(default_factory=dict)

    def block(
        self, nodes: Iterable[Node], wanted: Iterable[int]
    ) -> tuple[tuple[Node, ...], tuple[int, ...]]:
        """The nodes in other words, without those that nothing wanted needs; the wanted values."""
        found = [self._rewritten(node) for node in nodes]
        results = tuple(self._now(value) for value in wanted)
        kept = needed_nodes([node for node in found if node is not None], results)
        return kept, results

    def _now(self, value: int) -> int:
        return self.same.get(value, value)

    def _rewritten(self, node: Node) -> Node | None:
        inputs = tuple(self._now(i) for i in node.inputs)
        node = replace(node, inputs=inputs)
        if node.op == "scan":
            nodes, outputs = self.block(node.block.nodes, node.block.outputs)
            node = replace(node, body=Block(node.block.inputs, nodes, outputs))
        elif node.op in RULES:
            for rule in RULES[node.op]:
                found = rule(self, node)
                if found is not None:
                    return self._replaced(node, *found)
        for output in node.outputs:
            self.made[output] = node
        return node

    def _replaced(
        self, node: Node, op: str, operand: int, attributes: dict[str, Any]
    ) -> Node | None:
        if op != "same":
            made = replace(node, op=op, inputs=(operand,), attributes=attributes)
            self.made[node.output] = made
            return made
        self.same[node.output] = operand
        if node.output in self.names:
            self.names.setdefault(operand, self.names[node.output])
        return None

    # --- What is known of a value

    def node(self, value: int, *ops: str) -> Node | None:
        """The node that makes a value, if it is one of ``ops``."""
        node = self.made.get(value)
        return node if node is not None and node.op in ops else None

    def number(self, value: int) -> float | None:
        """The number that a value is, if it is a literal."""
        node = self.node(value, "constant")
        return None if node is None else float(node.attributes["value"])

    def last(self, node: Node) -> bool:
        """Whether a reduction is over the last axis alone, and keeps it."""
        rank = len(self.types[node.inputs[0]].shape)
        return bool(node.attributes["keepdims"]) and node.attributes["axis"] == (rank - 1,)


def _bound(g: Idioms, node: Node) -> tuple[int, float, bool] | None:
    """``(x, bound, below)`` of ``where(x <= bound, bound, x)``, or of that with ``bound <= x``."""
    compared, bound, x = (
        g.node(node.inputs[0], "less_equal"),
        g.number(node.inputs[1]),
        node.inputs[2],
    )
    if compared is None or bound is None:
        return None
    for position in (0, 1):
        if compared.inputs[position] == x and g.number(compared.inputs[1 - position]) == bound:
            return x, bound, position == 0
    return None


def _relu(g: Idioms, node: Node) -> Found | None:
    found = _bound(g, node)
    if found is None or found[1] != 0 or not found[2]:
        return None
    return "relu", found[0], {}


def _clip(g: Idioms, node: Node) -> Found | None:
    outer = _bound(g, node)
    inner = None if outer is None or outer[2] else g.node(outer[0], "relu")
    if outer is None or inner is None:
        return None
    return "clip", inner.inputs[0], {"low": 0.0, "high": outer[1]}


def _times(g: Idioms, value: int, figure: float) -> int | None:
    """``x`` where a value is ``figure * x``."""
    node = g.node(value, "multiply")
    for a, b in (node.inputs, node.inputs[::-1]) if node is not None else ():
        if g.number(a) == figure:
            return b
    return None


def _sigmoid(g: Idioms, node: Node) -> Found | None:
    for a, b in (node.inputs, node.inputs[::-1]):
        half = _times(g, b, 0.5) if g.number(a) == 0.5 else None
        tanh = g.node(half, "tanh") if half is not None else None
        x = _times(g, tanh.inputs[0], 0.5) if tanh is not None else None
        if x is not None:
            return "sigmoid", x, {}
    return None


def _shifted(g: Idioms, value: int) -> int | None:
    """``x`` where a value is ``x`` less its largest entry along the last axis."""
    node = g.node(value, "subtract")
    most = None if node is None else g.node(node.inputs[1], "stop_gradient")
    most = None if most is None else g.node(most.inputs[0], "max")
    if node is None or most is None or most.inputs != node.inputs[:1] or not g.last(most):
        return None
    return node.inputs[0]


def _softmax(g: Idioms, node: Node) -> Found | None:
    exp, total = g.node(node.inputs[0], "exp"), g.node(node.inputs[1], "sum")
    if exp is None or total is None or total.inputs != (exp.output,) or not g.last(total):
        return None
    x = _shifted(g, exp.inputs[0])
    return None if x is None else ("softmax", x, {})


def _log_softmax(g: Idioms, node: Node) -> Found | None:
    log = g.node(node.inputs[1], "log")
    total = None if log is None else g.node(log.inputs[0], "sum")
    exp = None if total is None else g.node(total.inputs[0], "exp")
    if total is None or exp is None or exp.inputs != node.inputs[:1] or not g.last(total):
        return None
    x = _shifted(g, node.inputs[0])
    return None if x is None else ("log_softmax", x, {})


def _mean(g: Idioms, node: Node) -> Found | None:
    total, extent = g.node(node.inputs[0], "sum"), g.node(node.inputs[1], "extent")
    if total is None or extent is None:
        return None
    shape, axes = g.types[total.inputs[0]].shape, total.attributes["axis"]
    if not axes or tuple(shape[a] for a in axes) != tuple(extent.attributes["dims"]):
        return None
    return "mean", total.inputs[0], dict(total.attributes)


def _once(g: Idioms, node: Node) -> Found | None:
    """``1 * x`` is x, where x has the shape of the product."""
    for a, b in (node.inputs, node.inputs[::-1]):
        if g.number(a) == 1.0 and g.types[b] == g.types[node.output]:
            return "same", b, {}
    return None


def _select(g: Idioms, node: Node) -> Found | None:
    part = g.node(node.inputs[0], "slice")
    if part is None or part.attributes["axis"] != node.attributes["axis"]:
        return None
    axis, whole = part.attributes["axis"], g.types[part.inputs[0]].shape
    last = Dim.of(part.attributes["stop"]) == whole[axis]
    index = Dim(-1) if last else Dim.of(part.attributes["start"])
    return "select", part.inputs[0], {"axis": axis, "index": index}


RULES: Mapping[str, tuple[Callable[[Idioms, Node], Found | None], ...]] = {
    "where": (_relu, _clip),
    "add": (_sigmoid,),
    "divide": (_softmax, _mean),
    "subtract": (_log_softmax,),
    "multiply": (_once,),
    "squeeze": (_select,),
}
