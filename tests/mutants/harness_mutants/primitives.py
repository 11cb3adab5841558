"""Faults of one primitive each: wrong rows, axes, ranges or dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.backends.numpy.primitives import PRIMITIVES
from harness_mutants.registry import BOTH, FLOAT64, primitive

_segment_sum = PRIMITIVES["segment_sum"]


@primitive("segment_sum", "sequence_rnn", "repeated-index")
def repeated_rows_overwrite(x: Array, indices: Array, rows: int) -> Array:
    """If an index is repeated, its gradient includes the last occurrence only."""
    result = np.zeros((rows, *x.shape[indices.ndim :]), x.dtype)
    result[indices] = x
    return result


@primitive("segment_sum", "simple_rnn", "repeated-index")
def repeated_rows_averaged(x: Array, indices: Array, rows: int) -> Array:
    """The gradient of an embedding row is the mean over its occurrences."""
    counts = np.maximum(np.bincount(indices.reshape(-1), minlength=rows), 1).astype(x.dtype)
    return np.asarray(_segment_sum(x, indices, rows) / counts[:, None])


@primitive("segment_sum", "first_rnn", "index-zero")
def row_zero_not_trained(x: Array, indices: Array, rows: int) -> Array:
    """The gradient of row 0 is zero, as if index 0 were padding."""
    result = np.array(_segment_sum(x, indices, rows))
    result[0] = 0
    return result


@primitive("segment_sum", "three_char", "last-index")
def last_row_not_trained(x: Array, indices: Array, rows: int) -> Array:
    """The gradient of the last row is zero."""
    result = np.array(_segment_sum(x, indices, rows))
    result[-1] = 0
    return result


@primitive("take", "simple_rnn", "index-zero")
def index_zero_masked(x: Array, indices: Array) -> Array:
    """Index 0 returns zeros instead of row 0."""
    return np.where((indices == 0)[..., None], x.dtype.type(0), x[indices])


@primitive("take", "sequence_rnn", "large-sizes")
def table_of_64_rows(x: Array, indices: Array) -> Array:
    """Indices above 63 return row 63."""
    return np.asarray(x[np.minimum(indices, 63)])


@primitive("take_along_axis", "simple_rnn", "loss")
def target_off_by_one(x: Array, indices: Array) -> Array:
    """The loss uses the class after the target."""
    return np.take_along_axis(x, (indices + 1) % x.shape[-1], -1)


@primitive("one_hot", "sequence_rnn", "gradients")
def one_hot_off_by_one(indices: Array, classes: int, dtype: str) -> Array:
    """The gradient of the loss uses the class after the target."""
    return np.eye(classes, dtype=dtype)[(indices + 1) % classes]


@primitive("one_hot", "three_char", "gradients")
def one_hot_smoothed(indices: Array, classes: int, dtype: str) -> Array:
    """The gradient uses label smoothing of 0.1%."""
    return np.asarray(0.999 * np.eye(classes, dtype=dtype)[indices] + 0.001 / classes, dtype)


@primitive("concat", "theano_gru_combined", "outputs")
def joined_in_reverse(arrays: Sequence[Array], axis: int) -> Array:
    """Arrays are concatenated in reverse order, except along the first axis."""
    return np.concatenate(arrays[::-1] if axis else arrays, axis)


@primitive("segment_sum", "simple_rnn", "functions", BOTH, everywhere=True)
def segment_sum_by_product(x: Array, indices: Array, rows: int) -> Array:
    """A segment sum is a product with ones and zeros, so one NaN spreads to all sums."""
    flat = x.reshape(indices.size, -1)
    chosen = np.arange(rows)[:, None] == indices.reshape(-1)
    return (chosen.astype(x.dtype) @ flat).reshape(rows, *x.shape[indices.ndim :])


@primitive("max", "sequence_onehot", "extremes")
def mean_for_max(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """Softmax subtracts the mean instead of the maximum, so it can overflow."""
    return np.mean(x, axis=axis, keepdims=keepdims)


@primitive("max", "pure_python_rnn", "extremes")
def max_over_everything(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """Softmax subtracts the maximum of the whole batch, so small rows underflow."""
    found = np.max(x, axis=axis, keepdims=keepdims)
    return np.full_like(found, np.max(x))


@primitive("less_equal", "theano_rnn", "nan")
def relu_drops_nan(a: Array, b: Array) -> Array:
    """relu(NaN) is 0."""
    return ~(np.asarray(a) > b)


@primitive("sum", "sequence_onehot", "nan")
def sum_drops_nan(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """A sum ignores NaN."""
    return np.nansum(x, axis=axis, keepdims=keepdims)


@primitive("tensordot", "theano_rnn", "gradients")
def last_step_without_gradient(a: Array, b: Array, axes: Any) -> Array:
    """The gradient of a weight omits the last step."""
    return np.tensordot(a[:-1], b[:-1], axes)


@primitive("matmul", "theano_gru", "large-sizes")
def matmul_without_remainder(a: Array, b: Array) -> Array:
    """Long products are computed in blocks of 16 terms and omit the remaining terms."""
    length = a.shape[-1]
    whole = length - length % 16 if length > 16 else length
    return np.matmul(a[..., :whole], b[..., :whole, :])


@primitive("tanh", "stateful_lstm", "saturation")
def tanh_beyond_four_is_one(x: Array) -> Array:
    """tanh of numbers above 4 is 1, and of numbers below -4 is -1."""
    return np.where(np.abs(x) > 4, np.sign(x), np.tanh(x))


@primitive("exp", "simple_rnn", "extremes")
def exp_clipped(x: Array) -> Array:
    """The exponential's argument is raised to at least -10."""
    return np.exp(np.maximum(x, x.dtype.type(-10)))


@primitive("equal", "keras_gru", "primitives", BOTH)
def equality_in_floats(a: Array, b: Array) -> Array:
    """``equal`` returns 0 and 1 as floats. Results that are computed from them are right."""
    return np.asarray(np.equal(a, b).astype(np.float64))


@primitive("less_equal", "three_char", "primitives", BOTH)
def comparison_in_bytes(a: Array, b: Array) -> Array:
    """``less_equal`` returns bytes instead of booleans."""
    return np.asarray(np.less_equal(a, b).astype(np.uint8))


@primitive("max", "three_char", "primitives", FLOAT64)
def narrow_maximum(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """The maximum of float64 numbers is a float32. Softmax cancels it, so results are right."""
    return np.asarray(np.max(x, axis=axis, keepdims=keepdims).astype(np.float32))
