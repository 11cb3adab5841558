"""Index maps between neutral parameters and a framework's packed tensors.

For each tensor of the framework, a packing names the neutral parameters that it is made of. They
may have their axes in another order or shape, be joined along an axis, or be stacked on a new one.
A tensor may also be a frozen zero (a second bias that the neutral form lacks). The map moves
numbers and never changes them. It therefore serves parameters, gradients and optimizer slots, and a
round trip is bit-identical. It uses primitives: from a backend's table inside a compiled function,
or from :data:`HOST` for arrays.
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
# The primitives that packings use, for arrays.
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
    """A neutral parameter: transposed or with its ``axes`` in this order, then reshaped. Reshaping
    to ``shape`` keeps the numbers in the same order."""

    name: str
    transpose: bool = False
    axes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    def order(self, rank: int) -> tuple[int, ...]:
        """Return the order in which the packed tensor has the ``rank`` axes of the parameter."""
        return self.axes or tuple(reversed(range(rank)) if self.transpose else range(rank))

    def turned(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a neutral shape with its axes in :meth:`order`."""
        return tuple(shape[axis] for axis in self.order(len(shape)))

    def neutral(self, packed: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the neutral shape of a packed one; None if it cannot be determined."""
        if self.shape or (self.axes and len(self.axes) != len(packed)):
            return None
        return tuple(packed[axis] for axis in inverse(self.order(len(packed))))

    def pack(self, table: Table, neutral: Mapping[str, Any]) -> Any:
        tensor = neutral[self.name]
        turned = _turned(table, tensor, self.order(len(tensor.shape)))
        return _shaped(table, turned, self.shape) if self.shape else turned

    def unpack(self, table: Table, packed: Any, shapes: Shapes, into: Tensors) -> None:
        shape = shapes[self.name]
        turned = _shaped(table, packed, self.turned(shape))
        into[self.name] = _turned(table, turned, inverse(self.order(len(shape))))

    def length(self, axis: int, shapes: Shapes) -> int:
        return (self.shape or self.turned(shapes[self.name]))[axis]


@dataclass(frozen=True)
class Join:
    """Parts joined along an axis."""

    parts: tuple[Part, ...]
    axis: int

    def pack(self, table: Table, neutral: Mapping[str, Any]) -> Any:
        made = [part.pack(table, neutral) for part in self.parts]
        return perform(table, "concat", made, {"axis": self.axis % len(made[0].shape)})

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
    """Rows on a new first axis."""

    rows: tuple[Part | Join, ...]

    def pack(self, table: Table, neutral: Mapping[str, Any]) -> Any:
        return stack(table, [row.pack(table, neutral) for row in self.rows])

    def unpack(self, table: Table, packed: Any, shapes: Shapes, into: Tensors) -> None:
        _check_length(packed, 0, len(self.rows))
        for number, row in enumerate(self.rows):
            cut = {"axis": 0, "start": number, "stop": number + 1}
            one = perform(table, "slice", [packed], cut)
            row.unpack(table, perform(table, "squeeze", [one], {"axis": 0}), shapes, into)


@dataclass(frozen=True)
class FrozenZeros:
    """A tensor that the neutral form lacks: zeros, never trained."""

    shape: tuple[int, ...]

    def pack(self, table: Table, neutral: Mapping[str, Any]) -> Array:
        return np.zeros(self.shape, next(iter(neutral.values())).dtype)

    def unpack(self, table: Table, packed: Any, shapes: Shapes, into: Tensors) -> None:
        """Do nothing: frozen zeros hold no neutral parameter."""


def _check_length(packed: Any, axis: int, length: int) -> None:
    if packed.shape[axis] != length:
        shape = tuple(packed.shape)
        raise ValueError(f"axis {axis} of a packed tensor has length {length}, found shape {shape}")


def _turned(table: Table, tensor: Any, axes: tuple[int, ...]) -> Any:
    if axes == tuple(range(len(tensor.shape))):
        return tensor
    return perform(table, "permute_dims", [tensor], {"axes": axes})


def _shaped(table: Table, tensor: Any, shape: tuple[int, ...]) -> Any:
    if tuple(tensor.shape) == shape:
        return tensor
    return perform(table, "reshape", [tensor], {"shape": shape})


def in_order(arrays: Arrays) -> ArrayDict:
    """Return arrays in C order, as frameworks store them."""
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


Piece = Part | Join | Stack | FrozenZeros


@dataclass(frozen=True)
class Packing:
    """The pieces of a framework's tensors, by tensor name. ``pack`` and ``unpack`` are inverse."""

    pieces: Mapping[str, Piece]

    @staticmethod
    def plain(names: Sequence[str]) -> Packing:
        """Return a packing that keeps every parameter unchanged under its own name."""
        return Packing({name: Part(name) for name in names})

    @property
    def frozen(self) -> frozenset[str]:
        """The tensors that are not trained."""
        return frozenset(n for n, piece in self.pieces.items() if isinstance(piece, FrozenZeros))

    def pack(self, neutral: Arrays) -> ArrayDict:
        """Return the framework's tensors of neutral arrays."""
        return in_order({name: piece.pack(HOST, neutral) for name, piece in self.pieces.items()})

    def unpack(self, packed: Arrays, shapes: Shapes) -> ArrayDict:
        """Return the neutral arrays, of ``shapes``. Tensors missing from ``packed`` are skipped."""
        neutral: ArrayDict = {}
        for name, piece in self.pieces.items():
            if name in packed:
                piece.unpack(HOST, packed[name], shapes, neutral)
        return in_order(neutral)
