"""Lengths in the equations of a layer: which are free, and where its arguments have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.extend import Program
from harness.extend.program import Dim, Node, walk_nodes


def bounds(program: Program, node: Node) -> dict[str, Dim]:
    """``start`` and ``stop`` of a slice, or the ``index`` that is selected, as Python has them:
    counted from the end of the axis where it is free, and left out at the ends."""
    axis = node.attributes["axis"]
    length = settled(program, program.types[node.inputs[0]].shape[axis])
    found = {}
    for name in ("start", "stop", "index"):
        bound = settled(program, Dim.of(node.attributes.get(name, 0)))
        rest = bound - length
        is_end = bound == (length if name == "stop" else Dim())
        if name in node.attributes and (name == "index" or not is_end):
            from_end = bound.terms and not rest.terms and rest.constant < 0
            found[name] = rest if from_end else bound
    return found


def settled(program: Program, dim: Dim) -> Dim:
    """A dimension of which only the sizes are left that the arrays decide."""
    return dim.substitute({size: Dim(number) for size, number in program.sizes.items()})


def free_sizes(program: Program, nodes: Iterable[Node]) -> set[str]:
    """The sizes that the equations of nodes use, and that the arrays decide."""
    found: set[str] = set()
    for node in walk_nodes(nodes):
        dims: list[Any] = [
            dim
            for value in node.attributes.values()
            for dim in (value if isinstance(value, tuple) else (value,))
        ]
        if node.op in ("slice", "select"):
            dims = list(bounds(program, node).values())
        if node.op == "segment_sum" and not flat_already(program, node):
            dims += program.types[node.output].shape[1:]
        if node.body is not None:
            dims += [dim for v in stacked_only(node) for dim in program.types[v].shape]
        found.update(name for dim in dims if isinstance(dim, Dim) for name in dim.names)
    return found - program.sizes.keys()


def flat_already(program: Program, node: Node) -> bool:
    """Whether the indices of a segment_sum have one axis, as Keras wants them."""
    return len(program.types[node.inputs[1]].shape) == 1


def stacked_only(node: Node) -> list[int]:
    """What a loop stacks and does not carry."""
    outputs, count = node.block.outputs, node.carries
    return [value for value in outputs[count:] if value not in outputs[:count]]


def place_of(program: Program, values: Iterable[int], size: str) -> tuple[int, int] | None:
    """A value and the axis of it that has just this length."""
    for value in values:
        shape = program.types[value].shape
        if Dim.of(size) in shape:
            return value, shape.index(Dim.of(size))
    return None
