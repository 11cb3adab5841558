"""Maps between the spec's parameters and a framework's packed tensors (a packed tensor may hold
several parameters).

A packing lists the parameters in each tensor of the framework. The parameters may have another axis
order or shape, may be joined along an axis, or may be stacked on a new axis. A tensor may also be
frozen zeros, for example a second bias that the spec does not have. The map moves numbers and never
changes them. It therefore works for parameters, gradients and optimizer slots, and converting back
gives the same bits. It calls the primitives of a backend, inside a compiled function, or those of
:data:`HOST`, for numpy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.program.axes import inverse
from harness.runtime.interpreter import Table, perform, stack

Tensors = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
# The primitives that packings call, for numpy arrays.
HOST: Table = {
    "permute_dims": np.transpose,
    "reshape": lambda x, shape: np.reshape(x, shape),
    "concat": np.concatenate,
    "slice": lambda x, axis, start, stop: x[(slice(None),) * axis + (slice(start, stop),)],
    "expand_dims": np.expand_dims,
    "squeeze": np.squeeze,
}


@dataclass(frozen=True)
class Part:
    """A parameter of the spec, and how its numbers are arranged in a framework's tensor.

    The axes of the parameter are reversed (``transpose``) or put in the order ``axes``. It is then
    reshaped to ``shape``, which keeps the order of the numbers.
    """

    name: str
    transpose: bool = False
    axes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    def order(self, rank: int) -> tuple[int, ...]:
        """Return the order of the parameter's axes in the framework's tensor, e.g. ``(1, 0)``;
        ``rank`` is the number of axes."""
        return self.axes or tuple(reversed(range(rank)) if self.transpose else range(rank))

    def turned(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that a parameter of this shape has after its axes are put in
        :meth:`order`."""
        return tuple(shape[axis] for axis in self.order(len(shape)))

    def neutral(self, packed: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the parameter's shape in the spec, given its shape ``packed`` in the framework;
        return None if it does not follow from ``packed``."""
        if self.shape or (self.axes and len(self.axes) != len(packed)):
            return None
        return tuple(packed[axis] for axis in inverse(self.order(len(packed))))

    def pack(self, table: Table, neutral: Mapping[str, Any]) -> Any:
        tensor = neutral[self.name]
        turned = _permute(table, tensor, self.order(len(tensor.shape)))
        return _reshape(table, turned, self.shape) if self.shape else turned

    def unpack(self, table: Table, packed: Any, shapes: Shapes, into: Tensors) -> None:
        shape = shapes[self.name]
        turned = _reshape(table, packed, self.turned(shape))
        into[self.name] = _permute(table, turned, inverse(self.order(len(shape))))

    def length(self, axis: int, shapes: Shapes) -> int:
        return (self.shape or self.turned(shapes[self.name]))[axis]


@dataclass(frozen=True)
class Join:
    """A tensor that consists of parameters, concatenated along ``axis``."""

    parts: tuple[Part, ...]
    axis: int

    def pack(self, table: Table, neutral: Mapping[str, Any]) -> Any:
        tensors = [part.pack(table, neutral) for part in self.parts]
        return perform(table, "concat", tensors, {"axis": self.axis % len(tensors[0].shape)})

    def unpack(self, table: Table, packed: Any, shapes: Shapes, into: Tensors) -> None:
        start = 0
        for part in self.parts:
            stop = start + part.length(self.axis, shapes)
            cut = {"axis": self.axis % len(packed.shape), "start": start, "stop": stop}
            part.unpack(table, perform(table, "slice", [packed], cut), shapes, into)
            start = stop
        _check_length(packed, self.axis, start)


@dataclass(frozen=True)
class Stack:
    """A tensor that consists of tensors of equal shape, stacked on a new first axis."""

    rows: tuple[Part | Join, ...]

    def pack(self, table: Table, neutral: Mapping[str, Any]) -> Any:
        return stack(table, [row.pack(table, neutral) for row in self.rows])

    def unpack(self, table: Table, packed: Any, shapes: Shapes, into: Tensors) -> None:
        _check_length(packed, 0, len(self.rows))
        for number, row in enumerate(self.rows):
            cut = {"axis": 0, "start": number, "stop": number + 1}
            slice_ = perform(table, "slice", [packed], cut)
            row.unpack(table, perform(table, "squeeze", [slice_], {"axis": 0}), shapes, into)


@dataclass(frozen=True)
class FrozenZeros:
    """A tensor of zeros that is never trained; the spec has no such parameter."""

    shape: tuple[int, ...]

    def pack(self, table: Table, neutral: Mapping[str, Any]) -> Array:
        return np.zeros(self.shape, next(iter(neutral.values())).dtype)

    def unpack(self, table: Table, packed: Any, shapes: Shapes, into: Tensors) -> None:
        """Do nothing, because frozen zeros hold no parameter of the spec."""


def _check_length(packed: Any, axis: int, length: int) -> None:
    if packed.shape[axis] != length:
        shape = tuple(packed.shape)
        raise ValueError(f"axis {axis} of a packed tensor has length {length}, found shape {shape}")


def _permute(table: Table, tensor: Any, axes: tuple[int, ...]) -> Any:
    if axes == tuple(range(len(tensor.shape))):
        return tensor
    return perform(table, "permute_dims", [tensor], {"axes": axes})


def _reshape(table: Table, tensor: Any, shape: tuple[int, ...]) -> Any:
    if tuple(tensor.shape) == shape:
        return tensor
    return perform(table, "reshape", [tensor], {"shape": shape})


def in_order(arrays: Arrays) -> ArrayDict:
    """Return the arrays in C order (row-major), because frameworks store arrays in this order."""
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


Piece = Part | Join | Stack | FrozenZeros


@dataclass(frozen=True)
class Packing:
    """A mapping from each tensor of a framework to the parameters that it holds. ``pack`` converts
    the spec's parameters to tensors, and ``unpack`` converts them back."""

    pieces: Mapping[str, Piece]

    @staticmethod
    def plain(names: Sequence[str]) -> Packing:
        """Return a packing that keeps every parameter unchanged under its own name."""
        return Packing({name: Part(name) for name in names})

    @property
    def frozen(self) -> frozenset[str]:
        """The names of the tensors that are never trained."""
        return frozenset(n for n, piece in self.pieces.items() if isinstance(piece, FrozenZeros))

    def pack(self, neutral: Arrays) -> ArrayDict:
        """Return the framework's tensors by name. ``neutral`` has arrays by the spec's parameter
        names, e.g. the parameters or their gradients."""
        return in_order({name: piece.pack(HOST, neutral) for name, piece in self.pieces.items()})

    def unpack(self, packed: Arrays, shapes: Shapes) -> ArrayDict:
        """Return the arrays of the spec's parameters, whose shapes are ``shapes``. Parameters whose
        tensor is missing in ``packed`` are left out."""
        neutral: ArrayDict = {}
        for name, piece in self.pieces.items():
            if name in packed:
                piece.unpack(HOST, packed[name], shapes, neutral)
        return in_order(neutral)
