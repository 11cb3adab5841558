"""The primitives of the backend ``numpy`` as numpy functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from harness.extend import Array, narrow, rounded_to
from harness.extend.helpers import slice_axis
from harness.extend.program import FramedAxis, framed_axes, pads_of

from .erf import erf

# Windows are strided views; only padding copies entries.

Each = tuple[int, ...]
Pads = Sequence[tuple[int, int]]


def windows(x: Array, *, lowest: bool, **framing: Each) -> Array:
    """Return the sliding windows of x (as for a convolution), as the primitive ``windows`` defines
    them. ``framing`` has size, stride, dilation and padding. With ``lowest``, the padding is -inf,
    otherwise 0."""
    axes = framed_axes(framing)
    pads = pads_of(framing, x.ndim)
    padded = np.full(_padded_shape(pads, x.shape), -np.inf if lowest else 0, x.dtype)
    padded[_inner_slices(pads, x.shape)] = x
    return _window_view(padded, axes, [axis.length for axis in axes])


def overlap_add(x: Array, **framing: Each) -> Array:
    """Return the sum of overlapping windows, as the primitive ``overlap_add`` (the transpose of
    ``windows``) defines it. ``framing`` has size, stride, dilation and padding."""
    axes = framed_axes(framing)
    last = axes[-1].axis + 1
    shape = [*x.shape[:last], *x.shape[last + len(axes) :]]
    count = [shape[axis.axis] for axis in axes]
    for axis in axes:
        shape[axis.axis] = axis.length
    pads = pads_of(framing, len(shape))
    padded = np.zeros(_padded_shape(pads, shape), x.dtype)
    places = _window_view(padded, axes, count)
    for place in product(*(range(axis.size) for axis in axes)):
        index = (slice(None),) * last + place
        places[index] += x[index]
    return padded[_inner_slices(pads, shape)]


def _window_view(padded: Array, axes: Sequence[FramedAxis], count: Sequence[int]) -> Array:
    """Return the windows of a padded array as a view of its memory. ``count`` is the number of
    windows along each axis."""
    shape, strides = list(padded.shape), list(padded.strides)
    for axis, number in zip(axes, count, strict=True):
        shape[axis.axis] = number
        strides[axis.axis] = padded.strides[axis.axis] * axis.stride
    last = axes[-1].axis + 1
    shape[last:last] = [axis.size for axis in axes]
    strides[last:last] = [padded.strides[axis.axis] * axis.dilation for axis in axes]
    return np.ndarray(tuple(shape), padded.dtype, padded, 0, tuple(strides))


def _padded_shape(pads: Pads, shape: Sequence[int]) -> list[int]:
    return [before + n + after for n, (before, after) in zip(shape, pads, strict=True)]


def _inner_slices(pads: Pads, shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(before, before + n) for (before, _), n in zip(pads, shape, strict=True))


# All other primitives.

UFUNCS: Mapping[str, Any] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "negative": np.negative,
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
}


def _one_hot(indices: Array, classes: int, dtype: str) -> Array:
    rows = np.zeros((indices.size, classes), dtype)
    rows[np.arange(indices.size), indices.reshape(-1)] = 1
    return rows.reshape(*indices.shape, classes)


def _segment_sum(x: Array, indices: Array, rows: int) -> Array:
    """Return an array with ``rows`` rows. Row i is the sum of the rows of ``x`` whose entry in
    ``indices`` is i. The rows are first sorted by index, because np.add.at would be 50 times
    slower."""
    rest = x.shape[indices.ndim :]
    flat, values = indices.reshape(-1), x.reshape(indices.size, *rest)
    result = np.zeros((rows, *rest), x.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        found, starts = np.unique(flat[order], return_index=True)
        result[found] = np.add.reduceat(values[order], starts, axis=0)
    return result


PRIMITIVES: Mapping[str, Callable[..., Any]] = {
    **UFUNCS,
    "where": np.where,
    "astype": lambda x, dtype: rounded_to(x, dtype) if narrow(dtype) else x.astype(dtype),
    "permute_dims": np.transpose,
    "broadcast_to": np.broadcast_to,
    "expand_dims": np.expand_dims,
    "squeeze": np.squeeze,
    "concat": np.concatenate,
    "slice": slice_axis,
    "flip": np.flip,
    "take": lambda x, indices: np.take(x, indices, axis=0),
    "take_along_axis": lambda x, indices: np.take_along_axis(x, indices, -1),
    "one_hot": _one_hot,
    "segment_sum": _segment_sum,
    "sum": np.sum,
    "max": np.max,
    "matmul": np.matmul,
    "tensordot": np.tensordot,
    "stop_gradient": lambda x: x,
    "arange": np.arange,
    # Pass the shape by position, because numpy 1 names this argument "newshape".
    "reshape": lambda x, shape: np.reshape(x, shape),
    "erf": erf,
    "windows": windows,
    "overlap_add": overlap_add,
    "cumulative_sum": lambda x: np.cumsum(x, -1),
    "argsort": lambda x: np.argsort(x, -1, kind="stable"),
}
