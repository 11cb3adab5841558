"""Windows along axes, by strides: no entry is copied but for padding."""

from __future__ import annotations

from itertools import product

import numpy as np

from harness.extend import Array

Each = tuple[int, ...]


def _frame(
    padded: Array,
    axes: Each,
    size: Each,
    stride: Each,
    dilation: Each,
    count: Each,
) -> Array:
    """The windows of an array that is padded, as another view of its memory."""
    shape, strides = list(padded.shape), list(padded.strides)
    for axis, step, number in zip(axes, stride, count, strict=True):
        shape[axis] = number
        strides[axis] = padded.strides[axis] * step
    last = axes[-1] + 1
    shape[last:last] = size
    strides[last:last] = [
        padded.strides[axis] * apart for axis, apart in zip(axes, dilation, strict=True)
    ]
    return np.ndarray(tuple(shape), padded.dtype, padded, 0, tuple(strides))


def windows(
    x: Array,
    axes: Each,
    size: Each,
    stride: Each,
    dilation: Each,
    padding: Each,
    after: Each,
    length: Each,
    lowest: bool,
) -> Array:
    """See the primitive."""
    padded = np.full(_padded(x.shape, axes, padding, after), -np.inf if lowest else 0, x.dtype)
    inside = [slice(None)] * x.ndim
    for axis, before in zip(axes, padding, strict=True):
        inside[axis] = slice(before, before + x.shape[axis])
    padded[tuple(inside)] = x
    return _frame(padded, axes, size, stride, dilation, length)


def overlap_add(
    x: Array,
    axes: Each,
    size: Each,
    stride: Each,
    dilation: Each,
    padding: Each,
    after: Each,
    length: Each,
) -> Array:
    """See the primitive: for each place in a window, all windows at once."""
    last, rank = axes[-1] + 1, len(axes)
    shape = [*x.shape[:last], *x.shape[last + rank :]]
    count = tuple(shape[axis] for axis in axes)
    for axis, number in zip(axes, length, strict=True):
        shape[axis] = number
    padded = np.zeros(_padded(shape, axes, padding, after), x.dtype)
    places = _frame(padded, axes, size, stride, dilation, count)
    for place in product(*map(range, size)):
        index = (slice(None),) * last + place
        places[index] += x[index]
    inside = [slice(None)] * len(shape)
    for axis, before, number in zip(axes, padding, length, strict=True):
        inside[axis] = slice(before, before + number)
    return padded[tuple(inside)]


def _padded(shape: Each | list[int], axes: Each, padding: Each, after: Each) -> list[int]:
    whole = list(shape)
    for axis, before, behind in zip(axes, padding, after, strict=True):
        whole[axis] += before + behind
    return whole
