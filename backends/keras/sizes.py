"""Free lengths in the equations of a layer, and the arguments that have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.extend import Program
from harness.extend.program import Dim, Node, walk_nodes


def bounds(program: Program, node: Node) -> dict[str, Dim]:
    """Return ``start`` and ``stop`` of a slice, or the selected ``index``, in Python's notation. On
    a free axis they count from the end; bounds at the ends of the axis are left out."""
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
    """Return a dimension with all known sizes substituted; free sizes remain."""
    return dim.substitute({size: Dim(number) for size, number in program.sizes.items()})


def free_sizes(program: Program, nodes: Iterable[Node]) -> set[str]:
    """Return the free sizes that the equations of nodes use."""
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
    """Return whether the indices of a segment_sum have one axis, as Keras needs."""
    return len(program.types[node.inputs[1]].shape) == 1


def stacked_only(node: Node) -> list[int]:
    """Return the outputs that a loop stacks but does not carry."""
    outputs, count = node.block.outputs, node.carries
    return [value for value in outputs[count:] if value not in outputs[:count]]


def place_of(program: Program, values: Iterable[int], size: str) -> tuple[int, int] | None:
    """Return a value and its axis that has exactly this length."""
    for value in values:
        shape = program.types[value].shape
        if Dim.of(size) in shape:
            return value, shape.index(Dim.of(size))
    return None
