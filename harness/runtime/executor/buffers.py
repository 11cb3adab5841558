"""Where values lie: strided pieces of flat buffers, described without any framework.

Axes in another order, slices, broadcasts and new axes are then other descriptions of the same
memory, found once when an executor is made, and cost nothing when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any, Literal

from harness.program.ir import Kind

# temporary: reused when dead. input: the caller's array. carried: the executor's own, kept between
# runs. constant: filled when the executor is made.
Role = Literal["temporary", "input", "carried", "constant"]


@dataclass(eq=False, slots=True)
class Buffer:
    """Flat memory for ``size`` entries of one kind; compared by identity.

    ``fills`` are a constant's entries from the first on: how many, and of which number.
    """

    size: int
    kind: Kind
    role: Role = "temporary"
    name: str = ""
    fills: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Constant:
    """The same number at every place of a shape."""

    number: float
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A strided piece of a buffer; ``offset`` and ``strides`` count entries."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    def plain_strides(self) -> tuple[int, ...]:
        """The strides, with those of axes of length 1 as in dense memory.

        These mean nothing, but a framework may compare them to tell what is written in place from
        what overlaps.
        """
        plain: list[int] = []
        dense = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            plain.append(dense if length == 1 else stride)
            dense *= length
        return tuple(reversed(plain))

    def permute(self, axes: Sequence[int]) -> View:
        """Axes in another order."""
        shape = tuple(self.shape[a] for a in axes)
        return View(self.buffer, shape, tuple(self.strides[a] for a in axes), self.offset)

    def expand(self, axis: int) -> View:
        """A new axis of length 1."""
        stride = self.strides[axis] * self.shape[axis] if axis < len(self.shape) else 1
        shape = (*self.shape[:axis], 1, *self.shape[axis:])
        strides = (*self.strides[:axis], stride, *self.strides[axis:])
        return View(self.buffer, shape, strides, self.offset)

    def squeeze(self, axis: int) -> View:
        """Without one axis, at its first place."""
        shape = (*self.shape[:axis], *self.shape[axis + 1 :])
        strides = (*self.strides[:axis], *self.strides[axis + 1 :])
        return View(self.buffer, shape, strides, self.offset)

    def narrow(self, axis: int, start: int, stop: int) -> View:
        """``start:stop`` along an axis."""
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        offset = self.offset + start * self.strides[axis]
        return View(self.buffer, shape, self.strides, offset)

    def row(self, index: int) -> View:
        """One place of the first axis."""
        return self.narrow(0, index, index + 1).squeeze(0)

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """Repeated along axes of length 1 and along new leading axes."""
        extra = len(shape) - len(self.shape)
        strides = [0] * extra
        for length, stride, wanted in zip(self.shape, self.strides, shape[extra:], strict=True):
            strides.append(stride if length == wanted else 0)
        return View(self.buffer, shape, tuple(strides), self.offset)

    def merge(self, *groups: int) -> View | None:
        """Neighbouring axes as one: ``groups`` counts the axes of each; None if that needs a copy.

        A group of no axes becomes an axis of length 1.
        """
        shape: list[int] = []
        strides: list[int] = []
        start = 0
        for count in groups:
            axes = range(start, start + count)
            start += count
            wide = [a for a in axes if self.shape[a] != 1]
            for outer, inner in pairwise(wide):
                if self.strides[outer] != self.strides[inner] * self.shape[inner]:
                    return None
            shape.append(prod(self.shape[a] for a in axes))
            strides.append(self.strides[wide[-1]] if wide else 1)
        return View(self.buffer, tuple(shape), tuple(strides), self.offset)

    def reshape(self, shape: tuple[int, ...]) -> View | None:
        """The same entries in the same order in another shape; None if that needs a copy."""
        strides: list[int] = []
        groups = [*_groups(self.shape, shape)]
        merged = self.merge(*(old for old, _ in groups))
        if merged is None:
            return None
        axes = iter(shape)
        for (_, new), stride in zip(groups, merged.strides, strict=True):
            lengths = [next(axes) for _ in range(new)]
            strides += [stride * prod(lengths[n + 1 :]) for n in range(new)]
        return View(self.buffer, shape, tuple(strides), self.offset)

    def same_place(self, other: View) -> bool:
        """Whether both name the same entries in the same order."""
        return self.buffer is other.buffer and self.lies_as(other)

    def lies_as(self, other: View) -> bool:
        """Whether both have the same entries of their buffers in the same order."""
        return (self.offset, self.shape, self.plain_strides()) == (
            other.offset,
            other.shape,
            other.plain_strides(),
        )

    def fills_buffer(self) -> bool:
        """Whether it has every entry of its buffer, each once."""
        return self.size == self.buffer.size and 0 not in self.strides

    def memory_order(self) -> tuple[int, ...]:
        """The axes from the widest stride to the narrowest."""
        return tuple(sorted(range(len(self.shape)), key=lambda a: -self.strides[a]))


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[int, int]]:
    """How many neighbouring axes of two shapes make the same length together, the fewest first."""
    i = j = 0
    while i < len(old) or j < len(new):
        first = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (a := prod(old[first[0] : i])) != (b := prod(new[first[1] : j])):
            i, j = (i + 1, j) if a < b else (i, j + 1)
        yield i - first[0], j - first[1]


Operand = View | Constant


@dataclass(frozen=True, slots=True)
class Instruction:
    """One kernel's work: ``out = op(inputs, **attributes)``."""

    op: str
    out: View
    inputs: tuple[Operand, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def reads(self) -> tuple[View, ...]:
        """The inputs that lie in memory."""
        return tuple(i for i in self.inputs if isinstance(i, View))


def fresh(
    shape: tuple[int, ...],
    kind: Kind = "float",
    like: View | None = None,
    role: Role = "temporary",
) -> View:
    """A buffer of its own; its axes lie in the order of those of ``like``, of the same rank."""
    order = like.memory_order() if like is not None else tuple(range(len(shape)))
    strides = [0] * len(shape)
    stride = 1
    for axis in reversed(order):
        strides[axis] = stride
        stride *= max(shape[axis], 1)
    return View(Buffer(prod(shape), kind, role), shape, tuple(strides))
