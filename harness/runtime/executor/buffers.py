"""Views of values: strided pieces of flat memory, as in numpy, but without data and independent of
any framework.

Permuted axes, slices, broadcasts and new axes are views of the same memory. They are computed once,
when the executor is made, so they cost nothing when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any, Literal

from harness.program.ir import Kind

# temporary: reused after its last read. input: the caller's array. carried: the executor's memory,
# kept between runs. constant: filled when the executor is made.
Role = Literal["temporary", "input", "carried", "constant"]


@dataclass(eq=False, slots=True)
class Buffer:
    """Flat memory for ``size`` entries of one ``kind``, e.g. "float". Two buffers are equal only if
    they are the same object.

    ``fills`` is set for a constant: pairs of a count and a number, which give the entries in order.
    """

    size: int
    kind: Kind
    role: Role = "temporary"
    name: str = ""
    fills: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor in which every entry is the same number."""

    number: float
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A strided piece of a buffer, like a numpy view; ``offset`` and ``strides`` are counted in
    entries."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        """The number of entries of the view."""
        return prod(self.shape)

    def plain_strides(self) -> tuple[int, ...]:
        """Return the strides; an axis of length 1 gets the stride that it would have in an array
        without gaps.

        The strides of such axes have no effect. But frameworks may compare strides to find out
        whether a result may be written over an input.
        """
        plain: list[int] = []
        dense = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            plain.append(dense if length == 1 else stride)
            dense *= length
        return tuple(reversed(plain))

    def permute(self, axes: Sequence[int]) -> View:
        """Return a view with the axes in the order ``axes``, e.g. ``(1, 0)`` for the transpose."""
        shape = tuple(self.shape[a] for a in axes)
        return View(self.buffer, shape, tuple(self.strides[a] for a in axes), self.offset)

    def expand(self, axis: int) -> View:
        """Return a view with a new axis of length 1 at position ``axis``."""
        stride = self.strides[axis] * self.shape[axis] if axis < len(self.shape) else 1
        shape = (*self.shape[:axis], 1, *self.shape[axis:])
        strides = (*self.strides[:axis], stride, *self.strides[axis:])
        return View(self.buffer, shape, strides, self.offset)

    def squeeze(self, axis: int) -> View:
        """Return a view without the axis ``axis``; it shows the first entry of that axis."""
        shape = (*self.shape[:axis], *self.shape[axis + 1 :])
        strides = (*self.strides[:axis], *self.strides[axis + 1 :])
        return View(self.buffer, shape, strides, self.offset)

    def narrow(self, axis: int, start: int, stop: int) -> View:
        """Return a view of the entries ``start:stop`` of an axis."""
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        offset = self.offset + start * self.strides[axis]
        return View(self.buffer, shape, self.strides, offset)

    def row(self, index: int) -> View:
        """Return a view of entry ``index`` of the first axis, without this axis."""
        return self.narrow(0, index, index + 1).squeeze(0)

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """Return a view of the given shape, which repeats this view along axes of length 1 and
        along new axes at the front, as in numpy."""
        extra = len(shape) - len(self.shape)
        strides = [0] * extra
        for length, stride, wanted in zip(self.shape, self.strides, shape[extra:], strict=True):
            strides.append(stride if length == wanted else 0)
        return View(self.buffer, shape, tuple(strides), self.offset)

    def merge(self, *groups: int) -> View | None:
        """Return a view with merged axes. ``groups`` gives the number of neighbouring axes that
        become one axis, e.g. ``merge(2, 1)`` makes a matrix of three axes.

        Return None if merging needs a copy. A group of 0 axes becomes an axis of length 1.
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
        """Return a view of the same entries in another shape; return None if that needs a copy."""
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
        """Return whether two views show the same entries of the same buffer, in the same order."""
        return self.buffer is other.buffer and self.has_layout_of(other)

    def has_layout_of(self, other: View) -> bool:
        """Return whether two views have the same shape, strides and offset; their buffers may
        differ."""
        return (self.offset, self.shape, self.plain_strides()) == (
            other.offset,
            other.shape,
            other.plain_strides(),
        )

    def fills_buffer(self) -> bool:
        """Return whether the view contains every entry of its buffer exactly once."""
        return self.size == self.buffer.size and 0 not in self.strides

    def memory_order(self) -> tuple[int, ...]:
        """Return the numbers of the axes, ordered from the largest stride to the smallest, e.g.
        ``(0, 1)`` for a matrix in C order."""
        return tuple(sorted(range(len(self.shape)), key=lambda a: -self.strides[a]))


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Match the axes of two shapes of equal size; yield pairs (number of old axes, number of new
    axes).

    The old axes of a pair have the same product of lengths as its new axes. For ``[6, 4]`` and
    ``[2, 3, 4]``, the pairs are (1, 2) and (1, 1).
    """
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
    """An operation on memory: ``out = op(inputs, **attributes)``, where ``out`` is a view and the
    inputs are views or constants."""

    op: str
    out: View
    inputs: tuple[Operand, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def reads(self) -> tuple[View, ...]:
        """Return the inputs that are views of memory, without constants."""
        return tuple(i for i in self.inputs if isinstance(i, View))


def fresh(
    shape: tuple[int, ...],
    kind: Kind = "float",
    like: View | None = None,
    role: Role = "temporary",
) -> View:
    """Return a view of a new buffer in C order. With ``like``, the axes are instead ordered in
    memory like the axes of the view ``like``, which must have the same number of axes.

    ``role`` says what the buffer is for, e.g. "input" or "temporary".
    """
    order = like.memory_order() if like is not None else tuple(range(len(shape)))
    strides = [0] * len(shape)
    stride = 1
    for axis in reversed(order):
        strides[axis] = stride
        stride *= max(shape[axis], 1)
    return View(Buffer(prod(shape), kind, role), shape, tuple(strides))
