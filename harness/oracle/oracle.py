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

from harness.arrays import Array
from harness.oracle.orders import ORDERS, erf
from harness.oracle.patience import patient
from harness.program.ir import Node
from harness.runtime.backend import Backend
from harness.runtime.interpreter import Interpreter, Table, Watch
from harness.runtime.precision import narrow, rounded_to


def _slice(x: Array, axis: int, start: int, stop: int) -> Array:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _astype(x: Array, dtype: str) -> Array:
    array = np.asarray(x)
    return rounded_to(array, dtype) if narrow(dtype) else array.astype(dtype)


def _one_hot(indices: Array, classes: int, dtype: str) -> Array:
    return np.asarray(indices[..., None] == np.arange(classes)).astype(dtype)


def _segment_sum(x: Array, indices: Array, rows: int) -> Array:
    result = np.zeros((rows, *x.shape[indices.ndim :]), x.dtype)
    np.add.at(result, indices, x)
    return result


def _windows(x: Array, axes: tuple[int, ...], lowest: bool, **each: tuple[int, ...]) -> Array:
    """The entries by their places, which :mod:`harness.program.windows` defines."""
    pads = dict(zip(axes, zip(each["padding"], each["after"], strict=True), strict=True))
    x = np.pad(
        x,
        [pads.get(axis, (0, 0)) for axis in range(x.ndim)],
        constant_values=-np.inf if lowest else 0.0,
    )
    for axis, places in reversed([*zip(axes, _places(**each), strict=True)]):
        x = np.moveaxis(np.take(x, places, axis), axis + 1, axes[-1] + 1)
    return x


def _overlap_add(x: Array, axes: tuple[int, ...], **each: tuple[int, ...]) -> Array:
    """Added up at the same places, one axis after the other; what falls into the padding is left
    out."""
    counts = tuple(x.shape[axis] for axis in axes)
    pads = zip(each["padding"], each["length"], each["after"], strict=True)
    lengths = {axis: sum(pad) for axis, pad in zip(axes, pads, strict=True)}
    for axis, places in zip(axes, _places(**{**each, "length": counts}), strict=True):
        rows = np.moveaxis(x, (axis, axes[-1] + 1), (0, 1))
        whole = np.zeros((lengths[axis], *rows.shape[2:]), x.dtype)
        np.add.at(whole, places, rows)
        start = each["padding"][axes.index(axis)]
        kept = whole[start : start + each["length"][axes.index(axis)]]
        x = np.moveaxis(kept, 0, axis)
    return x


def _places(
    size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    length: Sequence[int],
    **_: Sequence[int],
) -> list[Array]:
    """For each axis the places ``[count, size]`` of the windows' entries in the padded axis."""
    return [
        np.arange(count)[:, None] * step + np.arange(entries) * apart
        for entries, step, apart, count in zip(size, stride, dilation, length, strict=True)
    ]


def _max(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """By real parts; what ties has the mean of the imaginary ones, as it shares a derivative."""
    most = np.asarray(np.max(np.real(x), axis=axis, keepdims=True))
    if np.iscomplexobj(x):
        tied = np.real(x) == most
        count = np.sum(tied, axis=axis, keepdims=True)
        most = most + 1j * np.sum(np.imag(x) * tied, axis=axis, keepdims=True) / count
    return most if keepdims else np.asarray(np.squeeze(most, axis))


_PRIMITIVES: Mapping[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "erf": erf,
    "sin": np.sin,
    "cos": np.cos,
    "floor": lambda x: np.floor(np.real(x)),
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
    "astype": _astype,
    "permute_dims": lambda x, axes: np.transpose(x, axes),
    "broadcast_to": lambda x, shape: np.broadcast_to(x, shape),
    "arange": lambda stop: np.arange(stop),
    "reshape": lambda x, shape: np.reshape(x, shape),
    "expand_dims": lambda x, axis: np.expand_dims(x, axis),
    "squeeze": lambda x, axis: np.squeeze(x, axis),
    "concat": lambda arrays, axis: np.concatenate(arrays, axis),
    "slice": _slice,
    "flip": lambda x, axis: np.flip(x, axis),
    "windows": _windows,
    "overlap_add": _overlap_add,
    "take": lambda x, indices: x[indices],
    "take_along_axis": lambda x, indices: np.take_along_axis(x, indices, -1),
    "one_hot": _one_hot,
    "segment_sum": _segment_sum,
    "cumulative_sum": lambda x: np.cumsum(x, -1),
    "argsort": lambda x: np.argsort(np.real(x), -1, kind="stable"),
    "sum": lambda x, axis, keepdims: np.sum(x, axis=axis, keepdims=keepdims),
    "max": _max,
    "matmul": np.matmul,
    "tensordot": lambda a, b, axes: np.tensordot(a, b, axes),
    "stop_gradient": np.real,
}
# What moves no numbers takes no time.
_VIEWS = frozenset({"permute_dims", "broadcast_to", "expand_dims", "squeeze", "slice", "flip"})
# Each of the others looks first whether there is time for it.
TABLE: Mapping[str, Callable[..., Any]] = {
    n: f if n in _VIEWS else patient(f) for n, f in _PRIMITIVES.items()
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
    interpreter = Interpreter(TABLE, sizes, dtype, lambda value: kind(value), watch=watch)
    # Saturated exponentials and NaN inputs are part of what is checked, not accidents.
    with np.errstate(all="ignore"):
        return interpreter.run(nodes, dict(env))


class Oracle(Backend):
    """The oracle behind the contract, so that it trains and carries state by the same session.

    In float32 it is the yardstick. ``order`` changes how sums are taken, or the last places of
    transcendental functions, never what they mean: the spread is the noise that any honest
    backend may show.
    """

    name = "oracle"

    def __init__(self, order: str = "plain") -> None:
        self._table: Table = {**TABLE, **{n: patient(f) for n, f in ORDERS[order].items()}}

    @property
    def primitives(self) -> Table:
        return self._table

    def tensor(self, array: Array) -> Array:
        return array

    def numpy(self, tensor: Array) -> Array:
        return np.array(tensor)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def quiet(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*arguments)

        return quiet
