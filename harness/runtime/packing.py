"""Index maps between neutral parameters and a framework's packed tensors.

A packing says, for each tensor of the framework, which neutral parameters it is made of: with
their axes in another order or shape, joined along an axis, stacked on a new one, or a frozen zero
(a second bias that the neutral form does not have). The map moves numbers and never changes them,
so it serves parameters, gradients and optimizer slots alike, and a round trip is bit-identical.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.program.permutations import inverse


@dataclass(frozen=True)
class Part:
    """One neutral parameter: transposed if asked, or with its ``axes`` in this order, and then in
    another ``shape``, with the same numbers in the same order."""

    name: str
    transpose: bool = False
    axes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    def order(self, rank: int) -> tuple[int, ...]:
        """The axes of the neutral parameter, of so many, as they stand in the packed one."""
        return self.axes or tuple(reversed(range(rank)) if self.transpose else range(rank))

    def back(self, rank: int) -> tuple[int, ...]:
        """The inverse of :meth:`order`."""
        return inverse(self.order(rank))

    def turned(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A neutral shape with its axes in :meth:`order`."""
        return tuple(shape[axis] for axis in self.order(len(shape)))

    def neutral(self, packed: tuple[int, ...]) -> tuple[int, ...] | None:
        """The neutral shape of a packed one; None where that does not tell it."""
        if self.shape or (self.axes and len(self.axes) != len(packed)):
            return None
        return tuple(packed[axis] for axis in self.back(len(packed)))

    def pack(self, neutral: Mapping[str, Array]) -> Array:
        array = neutral[self.name]
        turned = np.asarray(array.transpose(self.order(array.ndim)), order="C")
        return turned.reshape(self.shape or turned.shape)

    def unpack(self, packed: Array, shapes: Mapping[str, tuple[int, ...]], into: ArrayDict) -> None:
        shape = shapes[self.name]
        turned = packed.reshape(self.turned(shape))
        into[self.name] = np.asarray(turned.transpose(self.back(len(shape))), order="C")

    def length(self, axis: int, shapes: Mapping[str, tuple[int, ...]]) -> int:
        return (self.shape or self.turned(shapes[self.name]))[axis]


@dataclass(frozen=True)
class Join:
    """Parts side by side along an axis."""

    parts: tuple[Part, ...]
    axis: int

    def pack(self, neutral: Mapping[str, Array]) -> Array:
        return np.concatenate([part.pack(neutral) for part in self.parts], self.axis)

    def unpack(self, packed: Array, shapes: Mapping[str, tuple[int, ...]], into: ArrayDict) -> None:
        lengths = [part.length(self.axis, shapes) for part in self.parts]
        pieces = np.split(packed, np.cumsum(lengths)[:-1], self.axis)
        for part, piece in zip(self.parts, pieces, strict=True):
            part.unpack(piece, shapes, into)


@dataclass(frozen=True)
class Stack:
    """Rows on a new first axis."""

    rows: tuple[Part | Join, ...]

    def pack(self, neutral: Mapping[str, Array]) -> Array:
        return np.stack([row.pack(neutral) for row in self.rows])

    def unpack(self, packed: Array, shapes: Mapping[str, tuple[int, ...]], into: ArrayDict) -> None:
        for row, piece in zip(self.rows, packed, strict=True):
            row.unpack(piece, shapes, into)


@dataclass(frozen=True)
class FrozenZeros:
    """A tensor that the neutral form does not have: zeros, never trained."""

    shape: tuple[int, ...]

    def pack(self, neutral: Mapping[str, Array]) -> Array:
        dtype = next(iter(neutral.values())).dtype
        return np.zeros(self.shape, dtype)

    def unpack(self, packed: Array, shapes: Mapping[str, tuple[int, ...]], into: ArrayDict) -> None:
        """Nothing of it is neutral."""


Piece = Part | Join | Stack | FrozenZeros


@dataclass(frozen=True)
class Packing:
    """Framework tensor name -> piece. ``pack`` and ``unpack`` are inverse on neutral arrays."""

    pieces: Mapping[str, Piece]

    @staticmethod
    def plain(names: Sequence[str]) -> Packing:
        """Every parameter as it is, under its own name."""
        return Packing({name: Part(name) for name in names})

    @property
    def frozen(self) -> frozenset[str]:
        """The tensors that are not trained."""
        return frozenset(n for n, piece in self.pieces.items() if isinstance(piece, FrozenZeros))

    def pack(self, neutral: Mapping[str, Array]) -> ArrayDict:
        """The framework's tensors."""
        return {name: piece.pack(neutral) for name, piece in self.pieces.items()}

    def unpack(
        self, packed: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
    ) -> ArrayDict:
        """The neutral arrays, of ``shapes``. Tensors missing from ``packed`` are skipped."""
        neutral: ArrayDict = {}
        for name, piece in self.pieces.items():
            if name in packed:
                piece.unpack(packed[name], shapes, neutral)
        return neutral
