"""numpy, in float64 or float32: a table of primitives and nothing else.

What is narrower is rounded to it and kept in float32, in which numpy's products are fast. It has no
automatic differentiation, so it trains with the gradient that the program derives: what this file
does is all that a new backend must do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.extend import (
    NARROW,
    Array,
    Backend,
    Executor,
    Plan,
    Probes,
    Tensors,
    hookimpl,
    narrow,
    rounded_to,
)

from .erf import erf
from .fused import FUSED
from .kernels import UFUNCS, NumpyKernels
from .windows import overlap_add, windows


def _slice(x: Array, axis: int, start: int, stop: int) -> Array:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _one_hot(indices: Array, classes: int, dtype: str) -> Array:
    rows = np.zeros((indices.size, classes), dtype)
    rows[np.arange(indices.size), indices.reshape(-1)] = 1
    return rows.reshape(*indices.shape, classes)


def _segment_sum(x: Array, indices: Array, rows: int) -> Array:
    """Sorts the rows and sums each run of equal indices; np.add.at is 50 times slower."""
    flat, values = indices.reshape(-1), x.reshape(indices.size, -1)
    result = np.zeros((rows, values.shape[1]), x.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        found, starts = np.unique(flat[order], return_index=True)
        result[found] = np.add.reduceat(values[order], starts, axis=0)
    return result.reshape(rows, *x.shape[indices.ndim :])


PRIMITIVES: Mapping[str, Callable[..., Any]] = {
    **UFUNCS,
    "where": np.where,
    "astype": lambda x, dtype: rounded_to(x, dtype) if narrow(dtype) else x.astype(dtype),
    "permute_dims": np.transpose,
    "broadcast_to": np.broadcast_to,
    "expand_dims": np.expand_dims,
    "squeeze": np.squeeze,
    "concat": np.concatenate,
    "slice": _slice,
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
    # By place: numpy 1 calls the shape "newshape".
    "reshape": lambda x, shape: np.reshape(x, shape),
    "erf": erf,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "windows": windows,
    "overlap_add": overlap_add,
    "cumulative_sum": lambda x: np.cumsum(x, -1),
    "argsort": lambda x: np.argsort(x, -1, kind="stable"),
}


class Numpy(Backend):
    """See the module."""

    name = "numpy"
    primitives = PRIMITIVES
    fused = FUSED
    rewrites = True
    denormals = True

    def dtypes(self) -> Sequence[str]:
        return (*super().dtypes(), *NARROW)

    def tensor(self, array: Array) -> Array:
        return array

    def fill(self, tensor: Array, array: Array) -> None:
        np.copyto(tensor, array)

    def numpy(self, tensor: Array) -> Array:
        return np.array(tensor)  # a copy: the caller's must not change with ours

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def quiet(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):  # saturation and NaN are results here, not accidents
                return function(*arguments)

        return quiet

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        return Executor(plan, NumpyKernels(plan.dtype, plan.products))


@hookimpl
def harness_backend(name: str) -> Backend:
    return Numpy()


@hookimpl
def harness_defaults(name: str) -> Probes:
    from .defaults import PROBES

    return PROBES
