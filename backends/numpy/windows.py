"""Windows along axes as strided views. Entries are copied only for padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from harness.extend import Array
from harness.extend.program import FramedAxis, framed_axes, pads_of

Each = tuple[int, ...]
Pads = Sequence[tuple[int, int]]


def windows(x: Array, *, lowest: bool, **framing: Each) -> Array:
    """Return the windows of x, as the primitive ``windows`` defines them."""
    axes = framed_axes(framing)
    pads = pads_of(framing, x.ndim)
    padded = np.full(_whole(pads, x.shape), -np.inf if lowest else 0, x.dtype)
    padded[_inside(pads, x.shape)] = x
    return _framed(padded, axes, [axis.length for axis in axes])


def overlap_add(x: Array, **framing: Each) -> Array:
    """Return the sum of windows, as the primitive ``overlap_add`` defines it."""
    axes = framed_axes(framing)
    last = axes[-1].axis + 1
    shape = [*x.shape[:last], *x.shape[last + len(axes) :]]
    count = [shape[axis.axis] for axis in axes]
    for axis in axes:
        shape[axis.axis] = axis.length
    pads = pads_of(framing, len(shape))
    padded = np.zeros(_whole(pads, shape), x.dtype)
    places = _framed(padded, axes, count)
    for place in product(*(range(axis.size) for axis in axes)):
        index = (slice(None),) * last + place
        places[index] += x[index]
    return padded[_inside(pads, shape)]


def _framed(padded: Array, axes: Sequence[FramedAxis], count: Sequence[int]) -> Array:
    """Return the windows of a padded array as a view of its memory."""
    shape, strides = list(padded.shape), list(padded.strides)
    for axis, number in zip(axes, count, strict=True):
        shape[axis.axis] = number
        strides[axis.axis] = padded.strides[axis.axis] * axis.stride
    last = axes[-1].axis + 1
    shape[last:last] = [axis.size for axis in axes]
    strides[last:last] = [padded.strides[axis.axis] * axis.dilation for axis in axes]
    return np.ndarray(tuple(shape), padded.dtype, padded, 0, tuple(strides))


def _whole(pads: Pads, shape: Sequence[int]) -> list[int]:
    return [before + n + after for n, (before, after) in zip(shape, pads, strict=True)]


def _inside(pads: Pads, shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(before, before + n) for (before, _), n in zip(pads, shape, strict=True))
