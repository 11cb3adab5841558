"""The primitives of the Keras backends as Keras operations, which also accept symbolic tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.extend import Table
from harness.extend.helpers import slice_axis
from harness.extend.program import framed_axes

# Sliding windows as Keras operations, also for symbolic tensors.

Each = tuple[int, ...]


def framing(ops: Any) -> Mapping[str, Callable[..., Any]]:
    """Return a dictionary with the implementations of the primitives ``windows`` (all windows of an
    array, as for a convolution) and ``overlap_add`` (its transpose)."""
    return {"windows": partial(_windows, ops), "overlap_add": partial(_overlap_add, ops)}


def _windows(ops: Any, x: Any, *, lowest: bool, **framing: Each) -> Any:
    axes = framed_axes(framing)
    pads = {axis.axis: (axis.padding, axis.after) for axis in axes}
    x = _padded(ops, x, pads, -float("inf") if lowest else 0.0)
    for axis in reversed(axes):
        parts = [_part(x, axis.axis, axis.entries(j, axis.length)) for j in range(axis.size)]
        x = ops.stack(parts, axis=axes[-1].axis + 1)
    return x


def _overlap_add(ops: Any, x: Any, **framing: Each) -> Any:
    axes = framed_axes(framing)
    last = axes[-1].axis + 1
    for axis in axes:
        whole, total = axis.padding + axis.length + axis.after, None
        used = axis.stride * (x.shape[axis.axis] - 1) + 1
        for j in range(axis.size):
            one = ops.squeeze(_part(x, last, slice(j, j + 1)), last)
            start = j * axis.dilation
            pads = {axis.axis: (start, whole - start - used)}
            one = _padded(ops, _spread(ops, one, axis.axis, axis.stride), pads)
            total = one if total is None else total + one
        x = _part(total, axis.axis, slice(axis.padding, axis.padding + axis.length))
    return x


def _padded(ops: Any, x: Any, pads: Mapping[int, tuple[int, int]], fill: float = 0.0) -> Any:
    if not any(map(sum, pads.values())):
        return x
    return ops.pad(x, [pads.get(axis, (0, 0)) for axis in range(len(x.shape))], "constant", fill)


def _part(x: Any, axis: int, entries: slice) -> Any:
    return x[(slice(None),) * axis + (entries,)]


def _spread(ops: Any, x: Any, axis: int, step: int) -> Any:
    """Return ``x`` with ``step - 1`` zeros between neighbouring entries of an axis."""
    if step == 1:
        return x
    shape: Sequence[Any] = [-1 if n is None else n for n in x.shape]
    count = x.shape[axis]
    x = _padded(ops, ops.expand_dims(x, axis + 1), {axis + 1: (0, step - 1)})
    x = ops.reshape(x, (*shape[:axis], count * step, *shape[axis + 1 :]))
    return _part(x, axis, slice(0, step * (count - 1) + 1))


# The table of primitives.


def table(keras: Any, exact: Mapping[str, Callable[..., Any]]) -> Table:
    """Return the table of primitives, from name to function. The functions in ``exact`` replace
    Keras operations that round their results to float32."""
    ops = keras.ops

    def segment_sum(x: Any, indices: Any, rows: int) -> Any:
        shape, rank = tuple(x.shape), len(indices.shape)
        count = int(np.prod(shape[:rank]))
        flat = ops.reshape(x, (count, int(np.prod(shape[rank:]))))
        total = ops.segment_sum(flat, ops.reshape(indices, (count,)), num_segments=rows)
        return ops.reshape(total, (rows, *shape[rank:]))

    same = (
        "exp log tanh sqrt negative add subtract multiply divide power less less_equal equal where "
        "broadcast_to expand_dims squeeze flip sum max matmul tensordot stop_gradient "
        "erf sin cos floor"
    )
    functions = {name: getattr(ops, name) for name in same.split()} | {
        "arange": lambda stop: ops.arange(stop, dtype="int32"),
        "reshape": lambda x, shape: ops.reshape(x, shape),
        "astype": ops.cast,
        "permute_dims": ops.transpose,
        "concat": ops.concatenate,
        "slice": slice_axis,
        "take": lambda x, indices: ops.take(x, indices, axis=0),
        "take_along_axis": lambda x, indices: ops.take_along_axis(x, indices, axis=-1),
        "one_hot": lambda indices, classes, dtype: ops.one_hot(indices, classes, dtype=dtype),
        "segment_sum": segment_sum,
        **framing(ops),
        "cumulative_sum": lambda x: ops.cumsum(x, axis=-1),
        "argsort": lambda x: ops.argsort(x, axis=-1),
    }
    return functions | {name: _operation(keras, functions[name], f) for name, f in exact.items()}


def _operation(
    keras: Any, shaped: Callable[..., Any], function: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a Keras operation that calls ``function``, a function of the engine. For symbolic
    tensors, it uses ``shaped``, another Keras operation, only to find the shape of the result."""

    class Exact(keras.Operation):
        def __init__(self, attributes: Mapping[str, Any]) -> None:
            super().__init__()
            self.attributes = attributes

        def call(self, *arrays: Any) -> Any:
            return function(*arrays, **self.attributes)

        def compute_output_spec(self, *arrays: Any) -> Any:
            shape = shaped(*arrays, **self.attributes).shape
            return keras.KerasTensor(shape, dtype=arrays[0].dtype)

    def run(*arrays: Any, **attributes: Any) -> Any:
        if any(isinstance(array, keras.KerasTensor) for array in arrays):
            return Exact(attributes)(*arrays)
        return function(*arrays, **attributes)

    return run
