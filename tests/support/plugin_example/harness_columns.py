"""A backend in one file, for a device with its own memory that stores arrays in column order.

The host has handles of arrays, and each primitive launches a kernel. The harness reads only the
attribute ``shape`` of a handle. The device of this example is simulated with numpy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.extend import Backend, hookimpl


@dataclass(frozen=True)
class Handle:
    """A handle of an array on the device, which is stored in column order."""

    memory: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.memory.shape


def launch(kernel: Callable[..., np.ndarray]) -> Callable[..., Handle]:
    """Return a primitive that calls a kernel; arrays and results stay on the device."""

    def primitive(*tensors: Handle | list[Handle], **attributes: Any) -> Handle:
        arrays = [
            [part.memory for part in tensor] if isinstance(tensor, list) else tensor.memory
            for tensor in tensors
        ]
        with np.errstate(all="ignore"):  # overflow and NaN are expected results
            return Handle(np.asarray(kernel(*arrays, **attributes), order="F"))

    return primitive


def one_hot(indices: np.ndarray, classes: int, dtype: str) -> np.ndarray:
    return (indices[..., None] == np.arange(classes)).astype(dtype)


def segment_sum(x: np.ndarray, indices: np.ndarray, rows: int) -> np.ndarray:
    """Sum rows without a scatter; a product with one-hot rows would spread a NaN to all sums."""
    flat = x.reshape(indices.size, *x.shape[indices.ndim :])
    return np.stack([flat[indices.reshape(-1) == row].sum(axis=0) for row in range(rows)])


KERNELS: dict[str, Callable[..., np.ndarray]] = {
    **{name: getattr(np, name) for name in ("exp", "log", "tanh", "sqrt", "negative")},
    **{name: getattr(np, name) for name in ("add", "subtract", "multiply", "divide", "power")},
    **{name: getattr(np, name) for name in ("less", "less_equal", "equal", "where")},
    **{name: getattr(np, name) for name in ("broadcast_to", "expand_dims", "squeeze", "flip")},
    **{name: getattr(np, name) for name in ("sum", "max", "matmul", "tensordot")},
    "astype": lambda x, dtype: x.astype(dtype),
    "permute_dims": np.transpose,
    "concat": np.concatenate,
    "slice": lambda x, axis, start, stop: x.take(range(start, stop), axis),
    "take": lambda x, indices: x[indices],
    "take_along_axis": lambda x, indices: np.take_along_axis(x, indices, -1),
    "one_hot": one_hot,
    "segment_sum": segment_sum,
    "stop_gradient": lambda x: x,
}


PRIMITIVES = {name: launch(kernel) for name, kernel in KERNELS.items()}


class Columns(Backend):
    name = "columns"
    primitives = PRIMITIVES

    def tensor(self, array: np.ndarray) -> Handle:
        return Handle(np.array(array, order="F"))  # a copy, because the caller may change the array

    def numpy(self, tensor: Handle) -> np.ndarray:
        return np.array(tensor.memory, order="C")  # a copy of device memory


@hookimpl
def harness_backend(name: str) -> Backend:
    return Columns()
