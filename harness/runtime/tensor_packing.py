"""Packings over a backend's own tensors: the maps of :mod:`harness.runtime.packing` in primitives.

So an optimizer's equations see one parameter at a time, inside of what a framework compiles.
"""

from __future__ import annotations

from typing import Any

from harness.program.signature import local_of, owner_of
from harness.runtime.interpreter import Table, perform, stack
from harness.runtime.layout import Layout
from harness.runtime.native import Tensors
from harness.runtime.packing import Join, Part, Piece, Stack


def unpacked(layout: Layout, table: Table, tensors: Tensors) -> Tensors:
    """Packed tensors as those of the neutral parameters that they hold."""
    found = {n: tensors[n] for n in layout.plain}
    shapes: dict[str, dict[str, tuple[int, ...]]] = {instance: {} for instance in layout.claimed}
    for name, shape in layout.shapes.items():
        if owner_of(name) in shapes:
            shapes[owner_of(name)][local_of(name)] = shape
    for instance, packing in layout.claimed.items():
        for name, piece in packing.pieces.items():
            if name not in packing.frozen:
                tensor = tensors[f"{instance}/{name}"]
                _take(table, piece, tensor, shapes[instance], f"{instance}.", found)
    return found


def packed(layout: Layout, table: Table, tensors: Tensors) -> Tensors:
    """The inverse of :func:`unpacked`."""
    found = {n: tensors[n] for n in layout.plain}
    for instance, packing in layout.claimed.items():
        for name, piece in packing.pieces.items():
            if name not in packing.frozen:
                found[f"{instance}/{name}"] = _put(table, piece, tensors, f"{instance}.")
    return found


def _take(
    table: Table,
    piece: Piece,
    tensor: Any,
    shapes: dict[str, tuple[int, ...]],
    owner: str,
    into: Tensors,
) -> None:
    match piece:
        case Part():
            shape = shapes[piece.name]
            turned = _shaped(table, tensor, piece.turned(shape))
            into[owner + piece.name] = _turned(table, turned, piece.back(len(shape)))
        case Join(parts, axis):
            start = 0
            for part in parts:
                stop = start + part.length(axis, shapes)
                given = {"axis": axis % len(tensor.shape), "start": start, "stop": stop}
                row = perform(table, "slice", [tensor], given)
                _take(table, part, row, shapes, owner, into)
                start = stop
        case Stack():
            for number, row in enumerate(piece.rows):
                given = {"axis": 0, "start": number, "stop": number + 1}
                one = perform(table, "slice", [tensor], given)
                inner = perform(table, "squeeze", [one], {"axis": 0})
                _take(table, row, inner, shapes, owner, into)


def _put(table: Table, piece: Piece, tensors: Tensors, owner: str) -> Any:
    match piece:
        case Part():
            tensor = tensors[owner + piece.name]
            turned = _turned(table, tensor, piece.order(len(tensor.shape)))
            return _shaped(table, turned, piece.shape) if piece.shape else turned
        case Join(parts, axis):
            made = [_put(table, part, tensors, owner) for part in parts]
            return perform(table, "concat", made, {"axis": axis % len(made[0].shape)})
        case Stack():
            return stack(table, [_put(table, row, tensors, owner) for row in piece.rows])


def _turned(table: Table, tensor: Any, axes: tuple[int, ...]) -> Any:
    if axes == tuple(range(len(axes))):
        return tensor
    return perform(table, "permute_dims", [tensor], {"axes": axes})


def _shaped(table: Table, tensor: Any, shape: tuple[int, ...]) -> Any:
    if tuple(tensor.shape) == shape:
        return tensor
    return perform(table, "reshape", [tensor], {"shape": shape})
