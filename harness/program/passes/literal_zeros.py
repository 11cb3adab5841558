"""``0 * x`` as an equation writes it: zeros like x, and NaN where x is not finite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.program.ir import Node, walk_nodes


def kept(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes with ``0 * x`` as ``x - x``, which no rule takes for zeros, as one does a product
    with a state of zeros. What is made of an index or a condition is finite, and stays."""
    nodes = tuple(nodes)
    every = tuple(walk_nodes(nodes))
    zeros = {n.output for n in every if n.op == "constant" and n.attributes["value"] == 0}
    whole = {node.output for node in every if node.op == "astype"}
    return tuple(_kept(node, zeros, whole) for node in nodes) if zeros else nodes


def _kept(node: Node, zeros: set[int], whole: set[int]) -> Node:
    if node.body is not None:
        inner = tuple(_kept(one, zeros, whole) for one in node.body.nodes)
        return replace(node, body=replace(node.body, nodes=inner))
    others = [value for value in node.inputs if value not in zeros]
    if node.op != "multiply" or len(others) != 1 or others[0] in whole:
        return node
    return replace(node, op="subtract", inputs=(others[0], others[0]))
