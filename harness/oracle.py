"""The oracle: numpy in float64, one plain line a primitive, never optimised.

The same table runs on complex128, which proves the oracle's gradients: the complex step
f'(x) = Im f(x + ih) / h has no cancellation, so h = 1e-30 gives the derivative to rounding
(Squire and Trapp, 1998). Comparisons therefore look at real parts, and ``stop_gradient`` drops
the imaginary one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.program import Node
from harness.walk import Walker, Watch

Array = npt.NDArray[Any]


def _max(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    if np.iscomplexobj(x):
        raise TypeError("max of a complex array has no derivative: stop_gradient(max(x)) is meant")
    return np.asarray(np.max(x, axis=axis, keepdims=keepdims))


def _slice(x: Array, axis: int, start: int, stop: int) -> Array:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _one_hot(indices: Array, classes: int, dtype: str) -> Array:
    return (indices[..., None] == np.arange(classes)).astype(dtype)


def _segment_sum(x: Array, indices: Array, rows: int) -> Array:
    result = np.zeros((rows, *x.shape[indices.ndim :]), x.dtype)
    np.add.at(result, indices, x)
    return result


TABLE: Mapping[str, Callable[..., Any]] = {
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
    "less": lambda a, b: np.less(np.real(a), np.real(b)),
    "less_equal": lambda a, b: np.less_equal(np.real(a), np.real(b)),
    "equal": lambda a, b: np.equal(np.real(a), np.real(b)),
    "where": np.where,
    "astype": lambda x, dtype: np.asarray(x).astype(dtype),
    "permute_dims": lambda x, axes: np.transpose(x, axes),
    "broadcast_to": lambda x, shape: np.broadcast_to(x, shape),
    "expand_dims": lambda x, axis: np.expand_dims(x, axis),
    "squeeze": lambda x, axis: np.squeeze(x, axis),
    "concat": lambda arrays, axis: np.concatenate(arrays, axis),
    "slice": _slice,
    "flip": lambda x, axis: np.flip(x, axis),
    "take": lambda x, indices: x[indices],
    "take_along_axis": lambda x, indices: np.take_along_axis(x, indices, -1),
    "one_hot": _one_hot,
    "segment_sum": _segment_sum,
    "sum": lambda x, axis, keepdims: np.sum(x, axis=axis, keepdims=keepdims),
    "max": lambda x, axis, keepdims: _max(np.real(x), axis, keepdims),
    "matmul": np.matmul,
    "tensordot": lambda a, b, axes: np.tensordot(a, b, axes),
    "stop_gradient": np.real,
}


def run(
    nodes: Sequence[Node],
    env: Mapping[int, Array],
    sizes: Mapping[str, int],
    dtype: str = "float64",
    watch: Watch | None = None,
) -> dict[int, Array]:
    """Run nodes on numpy arrays of ``dtype``: float64, float32 (the yardstick) or complex128."""
    kind = np.dtype(dtype).type
    walker = Walker(TABLE, sizes, dtype, lambda value: kind(value), watch=watch)
    # Saturated exponentials and NaN inputs are part of what is checked, not accidents.
    with np.errstate(all="ignore"):
        return walker.run(nodes, dict(env))
