"""The primitives of the backend ``array-api-strict``: functions of the Python array API
standard."""

from __future__ import annotations

from typing import Any

import array_api_strict as xp

from harness.extend import Table
from harness.extend.helpers import one_hot, reduction, segment_sum, slice_axis

Tensor = Any


def _astype(x: Tensor, dtype: str) -> Tensor:
    return xp.astype(x, getattr(xp, dtype))


def _take(x: Tensor, indices: Tensor) -> Tensor:
    rows = xp.take(x, xp.reshape(indices, (-1,)), axis=0)  # in the standard, indices have one axis
    return xp.reshape(rows, (*indices.shape, *x.shape[1:]))


PRIMITIVES: Table = {
    "exp": xp.exp,
    "log": xp.log,
    "tanh": xp.tanh,
    "sqrt": xp.sqrt,
    "sin": xp.sin,
    "cos": xp.cos,
    "floor": xp.floor,
    "negative": xp.negative,
    "add": xp.add,
    "subtract": xp.subtract,
    "multiply": xp.multiply,
    "divide": xp.divide,
    "power": xp.pow,
    "less": xp.less,
    "less_equal": xp.less_equal,
    "equal": xp.equal,
    "where": xp.where,
    "astype": _astype,
    "permute_dims": xp.permute_dims,
    "broadcast_to": xp.broadcast_to,
    "expand_dims": xp.expand_dims,
    "squeeze": xp.squeeze,
    "flip": xp.flip,
    "concat": xp.concat,
    "reshape": xp.reshape,
    "slice": slice_axis,
    "take": _take,
    "take_along_axis": xp.take_along_axis,
    "one_hot": one_hot(xp.arange, _astype),
    "segment_sum": segment_sum(xp),
    "sum": reduction(xp.sum),
    "max": reduction(xp.max),
    "matmul": xp.matmul,
    "tensordot": xp.tensordot,
    "stop_gradient": lambda x: x,
    "arange": lambda stop: xp.arange(stop),
    "cumulative_sum": lambda x: xp.cumulative_sum(x, axis=-1),
    "argsort": xp.argsort,
}
