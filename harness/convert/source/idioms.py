"""Replacement of several primitives by one operation that every framework has, e.g. ``relu``, in
exported source code.

The new operations are ``relu``, ``clip``, ``sigmoid``, ``softmax``, ``log_softmax``, ``mean`` and
``select``. ``select`` takes one index of an axis and drops the axis: ``x[:, -1]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.program import patterns
from harness.program.dims import Dim
from harness.program.ir import Block, Node, Type, needed_nodes
from harness.program.patterns import Match

Rule = Callable[["Idioms", Node], Match | None]


@dataclass
class Idioms:
    """A rewriter that replaces groups of primitives by single nodes.

    ``made`` maps a value to the node that computes it. ``same`` maps a removed value to the equal
    value that replaces it.
    """

    types: Mapping[int, Type]
    names: dict[int, str]
    made: dict[int, Node] = field(default_factory=dict)
    same: dict[int, int] = field(default_factory=dict)

    def block(
        self, nodes: Iterable[Node], wanted: Iterable[int]
    ) -> tuple[tuple[Node, ...], tuple[int, ...]]:
        """Rewrite nodes. Return the new nodes that are needed to compute the values ``wanted``, and
        the numbers that these values have after rewriting."""
        rewritten = [self._rewritten(node) for node in nodes]
        results = tuple(self._now(value) for value in wanted)
        needed = needed_nodes([node for node in rewritten if node is not None], results)
        return needed, results

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
                match = rule(self, node)
                if match is not None:
                    return self._replaced(node, *match)
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

    # --- Facts about a value

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


def _named(find: Callable[[Idioms, tuple[int, ...]], Match | None]) -> Rule:
    return lambda g, node: find(g, node.inputs)


def _mean(g: Idioms, node: Node) -> Match | None:
    total, extent = g.node(node.inputs[0], "sum"), g.node(node.inputs[1], "extent")
    if total is None or extent is None:
        return None
    shape, axes = g.types[total.inputs[0]].shape, total.attributes["axis"]
    if not axes or tuple(shape[a] for a in axes) != tuple(extent.attributes["dims"]):
        return None
    return "mean", total.inputs[0], dict(total.attributes)


def _once(g: Idioms, node: Node) -> Match | None:
    """Replace ``1 * x`` by x if the product has the shape of x."""
    for a, b in (node.inputs, node.inputs[::-1]):
        if g.number(a) == 1.0 and g.types[b] == g.types[node.output]:
            return "same", b, {}
    return None


def _select(g: Idioms, node: Node) -> Match | None:
    part = g.node(node.inputs[0], "slice")
    if part is None or part.attributes["axis"] != node.attributes["axis"]:
        return None
    axis, whole = part.attributes["axis"], g.types[part.inputs[0]].shape
    last = Dim.of(part.attributes["stop"]) == whole[axis]
    index = Dim(-1) if last else Dim.of(part.attributes["start"])
    return "select", part.inputs[0], {"axis": axis, "index": index}


def _restored(g: Idioms, node: Node) -> Match | None:
    """Replace ``squeeze(expand_dims(x))`` by x, if the same axis is added and removed."""
    wide = g.node(node.inputs[0], "expand_dims")
    if wide is None or wide.attributes["axis"] != node.attributes["axis"]:
        return None
    return "same", wide.inputs[0], {}


RULES: Mapping[str, tuple[Rule, ...]] = {
    "where": (_named(patterns.relu), _named(patterns.clip)),
    "add": (_named(patterns.sigmoid),),
    "divide": (_named(patterns.softmax), _mean),
    "subtract": (_named(patterns.log_softmax),),
    "multiply": (_once,),
    "squeeze": (_select, _restored),
}
