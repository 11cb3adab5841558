"""The oracle: numpy in float64, one plain line per primitive, never optimised.

The same table runs on complex128, which proves the oracle's gradients. The complex step f'(x) = Im
f(x + ih) / h has no cancellation, so h = 1e-30 gives the derivative to rounding (Squire and Trapp,
1998). Comparisons therefore use real parts, and ``stop_gradient`` drops the imaginary part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.oracle.patience import patient
from harness.program.ir import Node
from harness.runtime.backend import Backend
from harness.runtime.interpreter import Interpreter, Table, Watch
from harness.runtime.precision import narrow, rounded_to

# Other orders of the same computation, which show the effect of rounding alone.

# Most additions of a sum that is made row by row; a longer sum adds several rows at a time.
MOST_ROWS = 4096
_ERF = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """Compute C's erf, entry by entry. A complex entry also gets the first Taylor term off the real
    axis, which is exact for a complex step."""
    x = np.asarray(x)
    whole = np.asarray(_ERF(np.asarray(x.real, np.float64)), np.float64)
    if not np.iscomplexobj(x):
        return whole.astype(x.dtype)
    slope = (2 / math.sqrt(math.pi)) * np.exp(-x.real * x.real)
    return np.asarray(whole + 1j * x.imag * slope)


def _reversed_matmul(a: Array, b: Array) -> Array:
    return np.asarray(np.matmul(a[..., ::-1], b[..., ::-1, :]))


def _one_by_one(a: Array, b: Array) -> Array:
    """Multiply row by row, as kernels with one accumulator do. Equal terms, as of equal examples,
    are then rounded to the same side. numpy's own products may hide that."""
    size = max(1, -(-len(b) // MOST_ROWS))
    total = np.zeros((len(a), b.shape[-1]), a.dtype)
    product, made = np.multiply if size == 1 else np.matmul, np.empty_like(total)
    for start in range(0, len(b), size):
        total += product(a[:, start : start + size], b[start : start + size], made)
    return total


def _one_by_one_from_the_end(a: Array, b: Array) -> Array:
    return _one_by_one(a[:, ::-1], b[::-1])


def _halved_matmul(a: Array, b: Array) -> Array:
    middle = a.shape[-1] // 2
    first = np.matmul(a[..., :middle], b[..., :middle, :])
    return np.asarray(first + np.matmul(a[..., middle:], b[..., middle:, :]))


def _reversed_sum(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    # One axis after the other, from its end, adding one entry at a time.
    for a in sorted(axis, reverse=True):
        x = np.add.accumulate(np.flip(x, a), a).take([-1], a) if x.shape[a] else x
    return x if keepdims else x.reshape([n for a, n in enumerate(x.shape) if a not in axis])


def _doubled_cumsum(x: Array) -> Array:
    """Sum 1, 2, 4, ... neighbours, as an associative scan does."""
    x, step = np.array(x), 1
    while step < x.shape[-1]:
        x[..., step:] = x[..., step:] + x[..., :-step]
        step *= 2
    return x


def _halved_cumsum(x: Array) -> Array:
    middle = x.shape[-1] // 2
    first, second = np.cumsum(x[..., :middle], -1), np.cumsum(x[..., middle:], -1)
    return np.concatenate([first, second + first[..., -1:]], -1) if middle else second


def _ordered_tensordot(
    matmul: Callable[[Array, Array], Array], turn: int = 1
) -> Callable[..., Array]:
    """Return a tensordot that sums over its axes in order, or in reverse order for ``turn`` -1."""

    def tensordot(a: Array, b: Array, axes: tuple[Sequence[int], Sequence[int]]) -> Array:
        left, right = (part[::turn] for part in axes)
        kept_a = [n for n in range(a.ndim) if n not in left]
        kept_b = [n for n in range(b.ndim) if n not in right]
        length = int(np.prod([a.shape[n] for n in left]))
        rows = np.transpose(a, (*kept_a, *left)).reshape(-1, length)
        columns = np.transpose(b, (*right, *kept_b)).reshape(length, -1)
        shape = [a.shape[n] for n in kept_a] + [b.shape[n] for n in kept_b]
        return matmul(rows, columns).reshape(shape)

    return tensordot


def _nudged(function: Callable[[Array], Array], bound: float = np.inf) -> Callable[[Array], Array]:
    """Return a function that is four units in the last place off, up or down by a fixed coin.

    No two libraries have the same exp, log or tanh, and later operations may magnify the
    difference.
    """

    def run(x: Array) -> Array:
        y = np.asarray(function(x))
        # Not alternating: a sum over the entries would cancel that.
        coins = np.random.default_rng(y.size).integers(0, 2, y.shape)
        eps = np.finfo(y.dtype).eps
        return np.asarray(np.clip(y * (1 + (8 * coins - 4) * eps), -bound, bound), y.dtype)

    return run


ORDERS: Mapping[str, Table] = {
    "plain": {},
    "reversed": {
        "matmul": _reversed_matmul,
        "sum": _reversed_sum,
        "cumulative_sum": _doubled_cumsum,
        "tensordot": _ordered_tensordot(_one_by_one_from_the_end),
    },
    "nudged": {
        "exp": _nudged(np.exp),
        "log": _nudged(np.log),
        "tanh": _nudged(np.tanh, bound=1.0),
        "erf": _nudged(erf, bound=1.0),
        "sin": _nudged(np.sin, bound=1.0),
        "cos": _nudged(np.cos, bound=1.0),
        # Sum over the axes in the other order: some frameworks put examples side by side, not time
        # steps.
        "tensordot": _ordered_tensordot(_one_by_one, turn=-1),
    },
    "halved": {
        "matmul": _halved_matmul,
        "tensordot": _ordered_tensordot(_halved_matmul),
        "cumulative_sum": _halved_cumsum,
    },
}


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
    """Take the entries of all windows; :mod:`harness.program.windows` defines their places."""
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
    """Add windows at the same places, one axis after the other, and drop the padding."""
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
    """Return for each axis the places ``[count, size]`` of window entries in the padded axis."""
    return [
        np.arange(count)[:, None] * step + np.arange(entries) * apart
        for entries, step, apart, count in zip(size, stride, dilation, length, strict=True)
    ]


def _max(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """Take the maximum by real parts; ties get the mean imaginary part, as for a derivative."""
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
# Views take no time, because they move no numbers.
_VIEWS = frozenset({"permute_dims", "broadcast_to", "expand_dims", "squeeze", "slice", "flip"})
# All other primitives check the time limit first.
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
    # The checks include saturated exponentials and NaN inputs on purpose.
    with np.errstate(all="ignore"):
        return interpreter.run(nodes, dict(env))


class Oracle(Backend):
    """The oracle as a backend, so that it trains and carries state through the same session.

    In float32 it is the yardstick. ``order`` changes the order of sums or the last places of
    transcendental functions, never their meaning. The spread is the noise that any correct backend
    may show.
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
