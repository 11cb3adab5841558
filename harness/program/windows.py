"""Sliding windows along axes, e.g. of convolutions: which entries a window has, how many windows
fit, and the shapes of results.

Window ``i`` has the entries ``i * stride + j * dilation - padding`` of the axis, for ``j`` from 0
to ``size - 1``. Entries before the start or after the end of the axis are padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from harness.program.dims import ONE, Attributes, Dim, Shape

# Attributes of ``windows`` and ``overlap_add`` that have one number for each windowed axis.
EACH = ("axes", "size", "stride", "dilation", "padding", "after", "length")


class FramedAxis(NamedTuple):
    """The attributes of one axis with sliding windows, as numbers for backends. ``padding`` entries
    precede the axis, and ``after`` entries follow it. ``length`` is the number of windows in a
    ``windows`` node, and the length of the axis in an ``overlap_add`` node."""

    axis: int
    size: int
    stride: int
    dilation: int
    padding: int
    after: int
    length: int

    def entries(self, number: int, count: int) -> slice:
        """Return a slice of the padded axis. It selects the entry ``number`` of each window, for
        ``count`` windows."""
        start = number * self.dilation
        return slice(start, start + self.stride * (count - 1) + 1, self.stride)


def framed_axes(framing: Mapping[str, Sequence[int]]) -> tuple[FramedAxis, ...]:
    """Return the axes with sliding windows of a ``windows`` or ``overlap_add`` node, whose
    attributes are ``framing``."""
    values = (framing[name] for name in EACH)
    return tuple(FramedAxis(*axis) for axis in zip(*values, strict=True))


@dataclass(frozen=True, slots=True)
class WindowedAxis:
    """An axis with ``length`` entries, along which windows slide. ``padding`` entries precede the
    axis, and ``after`` entries follow it."""

    length: Dim
    size: Dim
    stride: Dim
    dilation: Dim
    padding: Dim
    after: Dim

    def covered(self, count: Dim) -> Dim:
        """Return how many entries ``count`` windows span, from the start of the first window to the
        end of the last."""
        return self.stride * (count - 1) + self.dilation * (self.size - 1) + 1

    def room(self, count: Dim) -> tuple[Dim, Dim]:
        """Return two numbers. Exactly ``count`` windows fit the padded axis if both numbers are at
        least 0.

        The first number is how many entries are left after the last window. The second is ``stride
        - 1`` minus the first: if it is negative, one more window fits.
        """
        rest = self.length + self.padding + self.after - self.covered(count)
        return rest, self.stride - 1 - rest

    def after_first(self) -> Dim:
        """Return how many entries of the padded axis follow the first window."""
        return self.length + self.padding + self.after - self.covered(ONE)

    def count(self) -> Dim | None:
        """Return how many windows fit, or None if the number cannot be written as a symbolic
        dimension.

        With rest = :meth:`after_first`, the number is 1 + floor(rest / stride), but a symbolic
        dimension cannot contain a quotient. For rest = stride * a + c, the quotient is a + floor(c
        / stride).
        """
        rest = self.after_first()
        if self.stride == ONE:
            return rest + 1
        if self.stride.terms:
            # If the stride is symbolic, floor(c / s) is known only for c = 0 and c = -1.
            quotient = (rest - rest.constant).divided(self.stride)
            is_constant = rest.constant in (0, -1)
            return quotient + rest.constant + 1 if quotient is not None and is_constant else None
        if any(c % self.stride.constant for _, c in rest.terms):
            return None
        step = self.stride.constant
        return Dim(rest.constant // step + 1, tuple((name, c // step) for name, c in rest.terms))


def misfit_text(axis: WindowedAxis, count: Dim, sizes: Mapping[str, int] | None = None) -> str:
    """Return the error message for an axis that does not have exactly ``count`` windows. If
    ``sizes`` contains a size, the message shows its number."""
    known_dims = {name: Dim(size) for name, size in (sizes or {}).items()}
    framing = {f.name: getattr(axis, f.name).substitute(known_dims) for f in fields(axis)}
    number = count.substitute(known_dims)
    parts = [f"{number} {'window' if number == ONE else 'windows'} of size {framing['size']}"]
    parts += [f"{name} {framing[name]}" for name in ("stride", "dilation")]
    is_symmetric = framing["padding"] == framing["after"]
    parts.append(
        f"padding {framing['padding']}" + ("" if is_symmetric else f" and {framing['after']}")
    )
    correct = replace(axis, **framing).count()
    hint = (
        f"; the correct number is {correct}"
        if correct is not None and (correct.terms or correct.constant > 0)
        else ""
    )
    return f"an axis of {framing['length']} entries does not have {', '.join(parts)}{hint}"


def windowed_axes(
    op: str, shape: Shape, attributes: Attributes
) -> Iterator[tuple[WindowedAxis, Dim]]:
    """Yield each windowed axis of a ``windows`` or ``overlap_add`` node, with its number of
    windows. ``shape`` is the shape of the operand."""
    values = (attributes[name] for name in EACH)
    for axis, size, stride, dilation, padding, after, length in zip(*values, strict=True):
        axis_length, count = (shape[axis], length) if op == "windows" else (length, shape[axis])
        dims = map(Dim.of, (axis_length, size, stride, dilation, padding, after))
        yield WindowedAxis(*dims), Dim.of(count)


def windows_shape(shape: Shape, attributes: Attributes) -> Shape:
    """Return the shape of the result of ``windows``, for an operand with ``shape``. The length of a
    windowed axis becomes the number of windows. The axes inside a window are inserted after the
    last windowed axis."""
    axes, counts = (
        attributes["axes"],
        dict(zip(attributes["axes"], attributes["length"], strict=True)),
    )
    outer = tuple(Dim.of(counts.get(axis, dim)) for axis, dim in enumerate(shape))
    return (*outer[: axes[-1] + 1], *map(Dim.of, attributes["size"]), *outer[axes[-1] + 1 :])


def overlap_shape(shape: Shape, attributes: Attributes) -> Shape:
    """Return the shape of the result of ``overlap_add``, for an operand with ``shape``. Each axis
    of windows becomes an axis of entries, and the axes inside a window are removed."""
    axes = attributes["axes"]
    lengths = dict(zip(axes, attributes["length"], strict=True))
    outer = (*shape[: axes[-1] + 1], *shape[axes[-1] + 1 + len(axes) :])
    return tuple(Dim.of(lengths.get(axis, dim)) for axis, dim in enumerate(outer))


def pads_of(attributes: Attributes, rank: int) -> list[tuple[Any, Any]]:
    """Return a pair (padding before, padding after) for each axis of a value with ``rank`` axes;
    axes without windows get (0, 0)."""
    pads = zip(attributes["padding"], attributes["after"], strict=True)
    by_axis = dict(zip(attributes["axes"], pads, strict=True))
    return [by_axis.get(axis, (0, 0)) for axis in range(rank)]


def order_of_taken(axes: Sequence[int], rank: int) -> list[int]:
    """Return the permutation that a backend needs if it takes windows along the axes ``axes`` one
    by one. It moves the axes inside a window to their positions in the result of ``windows``.
    ``rank`` is the number of axes of the operand.

    Before the permutation, each axis inside a window directly follows its axis of windows.
    """
    places = [axis + sum(other < axis for other in axes) for axis in range(rank)]
    last = axes[-1] + 1
    return [*places[:last], *(places[axis] + 1 for axis in axes), *places[last:]]
