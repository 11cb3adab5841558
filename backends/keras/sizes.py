"""Functions for axes whose length is unknown when a layer is built, e.g. batch and time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.extend import Program
from harness.extend.program import Dim, Node, walk_nodes


def bounds(program: Program, node: Node) -> dict[str, Dim]:
    """Return the bounds of a slice (``start``, ``stop``) or a selection (``index``) as Python's
    indexing needs them. Bounds at an end of the axis are omitted.

    If the length of the axis is unknown when a layer is built, bounds near its end count from the
    end, e.g. -1.
    """
    axis = node.attributes["axis"]
    length = with_known_sizes(program, program.types[node.inputs[0]].shape[axis])
    by_name = {}
    for name in ("start", "stop", "index"):
        bound = with_known_sizes(program, Dim.of(node.attributes.get(name, 0)))
        rest = bound - length
        is_end = bound == (length if name == "stop" else Dim())
        if name in node.attributes and (name == "index" or not is_end):
            from_end = bound.terms and not rest.terms and rest.constant < 0
            by_name[name] = rest if from_end else bound
    return by_name


def with_known_sizes(program: Program, dim: Dim) -> Dim:
    """Return the axis length ``dim`` with numbers instead of those sizes that are known when a
    layer is built."""
    return dim.substitute({size: Dim(number) for size, number in program.sizes.items()})


def free_sizes(program: Program, nodes: Iterable[Node]) -> set[str]:
    """Return the names of the sizes that the operations need as numbers, although these are unknown
    when a layer is built."""
    names: set[str] = set()
    for node in walk_nodes(nodes):
        dims: list[Any] = [
            dim
            for value in node.attributes.values()
            for dim in (value if isinstance(value, tuple) else (value,))
        ]
        if node.op in ("slice", "select"):
            dims = list(bounds(program, node).values())
        if node.op == "segment_sum" and not has_flat_indices(program, node):
            dims += program.types[node.output].shape[1:]
        if node.body is not None:
            dims += [dim for v in stacked_outputs(node) for dim in program.types[v].shape]
        names.update(name for dim in dims if isinstance(dim, Dim) for name in dim.names)
    return names - program.sizes.keys()


def has_flat_indices(program: Program, node: Node) -> bool:
    """Return whether the indices of a ``segment_sum`` have only one axis. Keras requires this."""
    return len(program.types[node.inputs[1]].shape) == 1


def stacked_outputs(node: Node) -> list[int]:
    """Return the numbers of those outputs of a loop that are stacked over time. The other outputs
    are the carried values after the last step."""
    outputs, count = node.block.outputs, node.carries
    return [value for value in outputs[count:] if value not in outputs[:count]]


def find_axis(program: Program, values: Iterable[int], size: str) -> tuple[int, int] | None:
    """Return the number of a value that has an axis of length ``size``, and the number of that
    axis; return None if no value has such an axis."""
    for value in values:
        shape = program.types[value].shape
        if Dim.of(size) in shape:
            return value, shape.index(Dim.of(size))
    return None
