"""Windows along axes: gathered one axis after the other, and added up by products with ones."""

from __future__ import annotations

from string import ascii_letters

import numpy as np

from harness.extend import Dim, Node, UsageError, order_of_taken

from .graph import Graph


def windows(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Pad, then Gather for each axis, whose windows stand beside it at first."""
    attributes = node.attributes
    axes, rank = attributes["axes"], len(graph.program.types[node.inputs[0]].shape)
    pads = np.zeros((2, rank), np.int64)
    pads[0, list(axes)] = _numbers(graph, node, "padding")
    pads[1, list(axes)] = _numbers(graph, node, "after")
    value = inputs[0]
    if pads.any():
        fill = graph.number(-np.inf if attributes["lowest"] else 0.0)
        value = graph.emit("Pad", [value, graph.integers(*pads.ravel().tolist()), fill])
    columns = [_numbers(graph, node, name) for name in ("size", "stride", "dilation")]
    framed = [*zip(axes, attributes["length"], *columns, strict=True)]
    for axis, count, size, step, apart in reversed(framed):
        value = graph.emit("Gather", [value, _places(graph, count, size, step, apart)], axis=axis)
    graph.emit("Transpose", [value], output, perm=order_of_taken(axes, rank))


def _places(graph: Graph, count: Dim, size: int, step: int, apart: int) -> str:
    """The places ``[count, size]`` of the windows' entries."""
    offsets = graph.constant(np.arange(size) * apart)
    if not set(count.names) - graph.program.sizes.keys():
        number = count.resolve(graph.program.sizes)
        return graph.constant(np.arange(number)[:, None] * step + np.arange(size) * apart)
    stop = graph.emit("Squeeze", [graph.length(count)])
    ends = [graph.constant(np.array(0)), stop, graph.constant(np.array(1))]
    starts = graph.emit("Mul", [graph.emit("Range", ends), graph.integers(step)])
    return graph.emit("Add", [graph.emit("Unsqueeze", [starts, graph.integers(1)]), offsets])


def overlap_add(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """For each axis a product with ones where an entry of a window has its place.

    Raises:
        UsageError: arrays decide how many windows there are.
    """
    axes, shape = node.attributes["axes"], graph.program.types[node.inputs[0]].shape
    known = graph.program.sizes
    if any(set(shape[axis].names) - known.keys() for axis in axes):
        raise UsageError(
            f"{graph.program.name} cannot become an ONNX graph: overlap_add adds up windows whose "
            "number the arrays decide; give the axis a size"
        )
    names = ("size", "stride", "dilation", "padding", "length")
    columns = [_numbers(graph, node, name) for name in names]
    rows, ones = list(ascii_letters[: len(shape)]), []
    made = [*rows[: axes[-1] + 1], *rows[axes[-1] + 1 + len(axes) :]]
    terms = ["".join(rows)]
    for number, (axis, size, step, apart, before, length) in enumerate(
        zip(axes, *columns, strict=True)
    ):
        places = np.arange(shape[axis].resolve(known))[:, None] * step + np.arange(size) * apart
        table = (places[..., None] - before == np.arange(length)).astype(graph.dtype)
        made[axis] = rows[axis].upper()
        ones.append(graph.constant(table))
        terms.append(f"{rows[axis]}{rows[axes[-1] + 1 + number]}{made[axis]}")
    equation = f"{','.join(terms)}->{''.join(made)}"
    graph.emit("Einsum", [*inputs, *ones], output, equation=equation)


def _numbers(graph: Graph, node: Node, name: str) -> list[int]:
    return [Dim.of(dim).resolve(graph.program.sizes) for dim in node.attributes[name]]
