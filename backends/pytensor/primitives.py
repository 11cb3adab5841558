"""The primitives of the backend ``pytensor``: functions from nodes of a graph to a node."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad

from harness.extend import Table
from harness.extend.helpers import reduction, slice_axis

Node = Any  # pytensor.tensor.TensorVariable


def _one_hot(indices: Node, classes: int, dtype: str) -> Node:
    return pt.eq(indices[..., None], pt.arange(classes)).astype(dtype)


def _segment_sum(x: Node, indices: Node, rows: int) -> Node:
    zeros = pt.zeros((rows, *x.type.shape[indices.ndim :]), dtype=x.dtype)
    return pt.inc_subtensor(zeros[indices], x)


KERNELS: Table = {
    "exp": pt.exp,
    "log": pt.log,
    "tanh": pt.tanh,
    "sqrt": pt.sqrt,
    "sin": pt.sin,
    "cos": pt.cos,
    "erf": pt.erf,
    "floor": pt.floor,
    "negative": pt.neg,
    "add": pt.add,
    "subtract": pt.sub,
    "multiply": pt.mul,
    "divide": pt.true_div,
    "power": pt.pow,
    "less": pt.lt,
    "less_equal": pt.le,
    "equal": pt.eq,
    "where": pt.where,
    "astype": pt.cast,
    "permute_dims": lambda x, axes: x.dimshuffle(axes),
    "broadcast_to": pt.broadcast_to,
    "expand_dims": pt.expand_dims,
    "squeeze": pt.squeeze,
    "flip": pt.flip,
    "concat": pt.concatenate,
    "reshape": lambda x, shape: pt.reshape(x, shape),
    "slice": slice_axis,
    "take": lambda x, indices: x[indices],
    "take_along_axis": lambda x, indices: pt.take_along_axis(x, indices, axis=-1),
    "one_hot": _one_hot,
    "segment_sum": _segment_sum,
    "sum": reduction(pt.sum),
    "max": reduction(pt.max),
    "matmul": pt.matmul,
    "tensordot": pt.tensordot,
    "stop_gradient": disconnected_grad,
    "arange": lambda stop: pt.arange(stop),
    "cumulative_sum": lambda x: pt.cumsum(x, axis=-1),
    "argsort": lambda x: pt.argsort(x, axis=-1, stable=True),
}
