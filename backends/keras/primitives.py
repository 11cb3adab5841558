"""The table of primitives, implemented with Keras operations that also accept symbolic tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.extend import Table

from .windows import framing


def table(keras: Any, exact: Mapping[str, Callable[..., Any]]) -> Table:
    """Return the primitives as Keras operations; the functions in ``exact`` replace inexact
    operations."""
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
    found = {name: getattr(ops, name) for name in same.split()} | {
        "arange": lambda stop: ops.arange(stop, dtype="int32"),
        "reshape": lambda x, shape: ops.reshape(x, shape),
        "astype": ops.cast,
        "permute_dims": ops.transpose,
        "concat": ops.concatenate,
        "slice": lambda x, axis, start, stop: x[(slice(None),) * axis + (slice(start, stop),)],
        "take": lambda x, indices: ops.take(x, indices, axis=0),
        "take_along_axis": lambda x, indices: ops.take_along_axis(x, indices, axis=-1),
        "one_hot": lambda indices, classes, dtype: ops.one_hot(indices, classes, dtype=dtype),
        "segment_sum": segment_sum,
        **framing(ops),
        "cumulative_sum": lambda x: ops.cumsum(x, axis=-1),
        "argsort": lambda x: ops.argsort(x, axis=-1),
    }
    return found | {name: _operation(keras, found[name], f) for name, f in exact.items()}


def _operation(
    keras: Any, shaped: Callable[..., Any], function: Callable[..., Any]
) -> Callable[..., Any]:
    """Wrap a function of the engine as a Keras operation; ``shaped`` is Keras' own, which gives the
    shape of symbolic tensors."""

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
