"""Sliding windows along axes: gathered axis by axis, and summed as products with 0/1 matrices."""

from __future__ import annotations

from string import ascii_letters

import numpy as np

from harness.extend import UsageError
from harness.extend.program import Dim, Node, order_of_taken

from .graph import Graph


def windows(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Write a Pad, a Gather for each axis, and a Transpose."""
    attributes = node.attributes
    axes, rank = attributes["axes"], len(graph.program.types[node.inputs[0]].shape)
    zero = Dim(0)
    value = inputs[0]
    pads = [Dim.of(d) for name in ("padding", "after") for d in attributes[name]]
    if any(pad != zero for pad in pads):
        fill = graph.number(-np.inf if attributes["lowest"] else 0.0)
        whole = [[zero] * rank, [zero] * rank]
        for number, axis in enumerate(axes):
            whole[0][axis], whole[1][axis] = pads[number], pads[len(axes) + number]
        value = graph.emit("Pad", [value, graph.shape((*whole[0], *whole[1])), fill])
    columns = [[Dim.of(dim) for dim in attributes[name]] for name in COLUMNS]
    for axis, *framed in reversed([*zip(axes, *columns, strict=True)]):
        value = graph.emit("Gather", [value, _places(graph, *framed)], axis=axis)
    graph.emit("Transpose", [value], output, perm=order_of_taken(axes, rank))


# The names of the attributes that determine the positions of windows.
COLUMNS = ("length", "size", "stride", "dilation")


def _places(graph: Graph, count: Dim, size: Dim, step: Dim, apart: Dim) -> str:
    """Return the name of an array with the positions of window entries along one axis, ``[count,
    size]``."""
    known = graph.program.sizes
    if not {name for dim in (count, size, step, apart) for name in dim.names} - known.keys():
        numbers = (dim.resolve(known) for dim in (count, size, step, apart))
        windows_, places, between, within = numbers
        first = np.arange(windows_)[:, None] * between
        return graph.constant(first + np.arange(places) * within)
    starts = graph.emit("Mul", [graph.range(count), graph.length(step)])
    offsets = graph.emit("Mul", [graph.range(size), graph.length(apart)])
    return graph.emit("Add", [graph.emit("Unsqueeze", [starts, graph.integers(1)]), offsets])


def overlap_add(graph: Graph, node: Node, inputs: list[str], output: str) -> None:
    """Write an Einsum with a 0/1 matrix for each axis, which has a 1 at the position of each window
    entry.

    Raises:
        UsageError: the number of windows is a free size.
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
