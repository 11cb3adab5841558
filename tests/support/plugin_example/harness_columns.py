"""A backend in one file: a device with memory of its own, which keeps its arrays in columns.

The host holds handles; each primitive launches a kernel. A handle tells its shape, and nothing
else is asked of a tensor. The device of this example lives in numpy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.extend import Backend, hookimpl


@dataclass(frozen=True)
class Handle:
    """An array on the device, column after column."""

    memory: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.memory.shape


def launch(kernel: Callable[..., np.ndarray]) -> Callable[..., Handle]:
    """Make a primitive of a kernel: its arrays come from the device, and its result stays there."""

    def primitive(*tensors: Handle | list[Handle], **attributes: Any) -> Handle:
        arrays = [
            [part.memory for part in tensor] if isinstance(tensor, list) else tensor.memory
            for tensor in tensors
        ]
        with np.errstate(all="ignore"):  # overflow and NaN are results here, not accidents
            return Handle(np.asarray(kernel(*arrays, **attributes), order="F"))

    return primitive


def one_hot(indices: np.ndarray, classes: int, dtype: str) -> np.ndarray:
    return (indices[..., None] == np.arange(classes)).astype(dtype)


def segment_sum(x: np.ndarray, indices: np.ndarray, rows: int) -> np.ndarray:
    """The device has no scatter. A product with one-hot rows would spread a NaN to all sums."""
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
        return Handle(np.array(array, order="F"))  # a copy: the caller may write to its array

    def numpy(self, tensor: Handle) -> np.ndarray:
        return np.array(tensor.memory, order="C")  # a copy again: this memory is the device's


@hookimpl
def harness_backend(name: str) -> Backend:
    return Columns()
