"""The values that a derivative flows through, and the work that no step of a loop changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.program.ir import Block, Node, reads

# Ops whose output carries no derivative, whatever goes in.
CONSTANT = frozenset(
    {
        *("less", "less_equal", "equal", "astype", "one_hot", "stop_gradient", "floor"),
        *("arange", "argsort"),
        *("constant", "extent"),
    }
)


def hoist(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Loops without what does not change from step to step, and that before them.

    The passes hoist too, node by node as they emit a program anew; that also merges common
    subexpressions and asks for sizes. A derivative is taken of a program as it was written: that
    of the oracle must not be one that the passes have changed.
    """
    result: list[Node] = []
    for node in nodes:
        if node.op != "scan":
            result.append(node)
            continue
        inside = set(node.block.inputs)
        kept: list[Node] = []
        for inner in node.block.nodes:
            if inside.intersection(reads(inner)):
                kept.append(inner)
                inside.update(inner.outputs)
            else:
                result.append(inner)
        result.append(replace(node, body=replace(node.block, nodes=tuple(kept))))
    return tuple(result)


def active_values(nodes: Iterable[Node], against: set[int]) -> set[int]:
    """The values through which a derivative with respect to ``against`` flows."""
    active = set(against)
    for node in nodes:
        if node.op == "scan":
            _activate_scan(node, node.block, active)
        elif node.op not in CONSTANT and active.intersection(node.inputs):
            active.update(node.outputs)
    return active


def _activate_scan(node: Node, body: Block, active: set[int]) -> None:
    carries = node.carries
    active.update(b for b, i in zip(body.inputs, node.inputs, strict=True) if i in active)
    while True:
        before = len(active)
        active |= active_values(body.nodes, active)
        active.update(
            carry
            for carry, after in zip(body.inputs[:carries], body.outputs[:carries], strict=True)
            if after in active
        )
        if len(active) == before:
            break
    active.update(o for o, b in zip(node.outputs, body.outputs, strict=True) if b in active)
