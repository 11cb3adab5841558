"""Windows along axes: their entries, how many fit, and what is left of the axis.

Window ``i`` of an axis has the entries ``i * stride + j * dilation - padding`` for ``j`` below
``size``. Entries before or behind the axis are padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from harness.program.dims import ONE, Attributes, Dim, Shape

# Attributes with one entry for each windowed axis.
EACH = ("axes", "size", "stride", "dilation", "padding", "after", "length")


class FramedAxis(NamedTuple):
    """Numbers of a windowed axis for a backend. ``length`` is the number of windows for
    ``windows``, and the entries of the axis for ``overlap_add``."""

    axis: int
    size: int
    stride: int
    dilation: int
    padding: int
    after: int
    length: int

    def entries(self, place: int, count: int) -> slice:
        """Return the slice of the padded axis with entry ``place`` of each of ``count`` windows."""
        start = place * self.dilation
        return slice(start, start + self.stride * (count - 1) + 1, self.stride)


def framed_axes(framing: Mapping[str, Sequence[int]]) -> tuple[FramedAxis, ...]:
    """Return the axes in the attributes of a ``windows`` or ``overlap_add``."""
    columns = (framing[name] for name in EACH)
    return tuple(FramedAxis(*axis) for axis in zip(*columns, strict=True))


@dataclass(frozen=True, slots=True)
class WindowedAxis:
    """An axis of ``length`` entries and its windows; ``padding`` is before it, ``after`` behind."""

    length: Dim
    size: Dim
    stride: Dim
    dilation: Dim
    padding: Dim
    after: Dim

    def covered(self, count: Dim) -> Dim:
        """Return the number of entries from the first window's first to the last one's last."""
        return self.stride * (count - 1) + self.dilation * (self.size - 1) + 1

    def room(self, count: Dim) -> tuple[Dim, Dim]:
        """Return the entries that ``count`` windows leave, and those missing to one more window,
        less 1. Neither may be below 0. Both are of the padded axis."""
        left = self.length + self.padding + self.after - self.covered(count)
        return left, self.stride - 1 - left

    def beyond(self) -> Dim:
        """Return the entries that a single window leaves of the padded axis."""
        return self.length + self.padding + self.after - self.covered(ONE)

    def count(self) -> Dim | None:
        """Return how many windows fit, or None if that cannot be written without a quotient. For
        multiples of the stride plus a number it can: floor((s * a + c) / s) is a + floor(c / s)."""
        left = self.beyond()
        if self.stride == ONE:
            return left + 1
        if self.stride.terms:
            # If the stride is symbolic, floor(c / s) is known only for c = 0 and c = -1.
            whole = (left - left.constant).divided(self.stride)
            known = left.constant in (0, -1)
            return whole + left.constant + 1 if whole is not None and known else None
        if any(c % self.stride.constant for _, c in left.terms):
            return None
        step = self.stride.constant
        return Dim(left.constant // step + 1, tuple((name, c // step) for name, c in left.terms))


def misfit(axis: WindowedAxis, count: Dim, sizes: Mapping[str, int] | None = None) -> str:
    """Describe why ``count`` windows do not fit an axis, in numbers if all sizes are known."""
    known = {name: Dim(size) for name, size in (sizes or {}).items()}
    told = {f.name: getattr(axis, f.name).substitute(known) for f in fields(axis)}
    found = [f"{count.substitute(known)} windows of {told['size']}"]
    found += [f"{name} {told[name]}" for name in ("stride", "dilation")]
    both = told["padding"] == told["after"]
    found.append(f"padding {told['padding']}" + ("" if both else f" and {told['after']}"))
    right = replace(axis, **told).count()
    hint = (
        f"; {right} is right" if right is not None and (right.terms or right.constant > 0) else ""
    )
    return f"an axis of {told['length']} entries does not have {', '.join(found)}{hint}"


def windowed_axes(
    op: str, shape: Shape, attributes: Attributes
) -> Iterator[tuple[WindowedAxis, Dim]]:
    """Yield each axis of a ``windows`` or ``overlap_add`` with its number of windows. ``shape`` is
    that of the operand."""
    columns = (attributes[name] for name in EACH)
    for axis, size, stride, dilation, padding, after, length in zip(*columns, strict=True):
        whole, count = (shape[axis], length) if op == "windows" else (length, shape[axis])
        dims = map(Dim.of, (whole, size, stride, dilation, padding, after))
        yield WindowedAxis(*dims), Dim.of(count)


def windows_shape(shape: Shape, attributes: Attributes) -> Shape:
    """Return the shape of ``windows``: counts instead of the axes, then the axes inside a window.
    The latter stand behind the last windowed axis."""
    axes, counts = (
        attributes["axes"],
        dict(zip(attributes["axes"], attributes["length"], strict=True)),
    )
    outer = tuple(Dim.of(counts.get(axis, dim)) for axis, dim in enumerate(shape))
    return (*outer[: axes[-1] + 1], *map(Dim.of, attributes["size"]), *outer[axes[-1] + 1 :])


def overlap_shape(shape: Shape, attributes: Attributes) -> Shape:
    """Return the shape of ``overlap_add``: the axes at their length, without the windows' own."""
    axes = attributes["axes"]
    lengths = dict(zip(axes, attributes["length"], strict=True))
    outer = (*shape[: axes[-1] + 1], *shape[axes[-1] + 1 + len(axes) :])
    return tuple(Dim.of(lengths.get(axis, dim)) for axis, dim in enumerate(outer))


def pads_of(attributes: Attributes, rank: int) -> list[tuple[Any, Any]]:
    """Return the padding before and behind each axis of a value of that rank."""
    both = zip(attributes["padding"], attributes["after"], strict=True)
    known = dict(zip(attributes["axes"], both, strict=True))
    return [known.get(axis, (0, 0)) for axis in range(rank)]


def order_of_taken(axes: Sequence[int], rank: int) -> list[int]:
    """Return the permutation to the axis order of ``windows`` from axes taken one by one. Each axis
    of ``axes`` was taken by itself, so that its windows stand right behind it."""
    places = [axis + sum(other < axis for other in axes) for axis in range(rank)]
    last = axes[-1] + 1
    return [*places[:last], *(places[axis] + 1 for axis in axes), *places[last:]]
