"""The oracle: an interpreter that runs each primitive with numpy in float64, without optimisations.

The primitives also accept complex128, for the test of the oracle's gradients by the complex step
(:mod:`harness.oracle.complex_step`). Comparisons of complex numbers therefore use the real parts,
and ``stop_gradient`` drops the imaginary part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.oracle.time_limit import time_checked
from harness.program.ir import Node
from harness.runtime.backend import Backend
from harness.runtime.interpreter import Interpreter, Table, Watch
from harness.runtime.precision import narrow, rounded_to

# Different orders of the same sums. Their results differ only by rounding errors.

# Largest number of single additions in a product; longer products add several rows at a time.
MOST_ROWS = 4096
_ERF = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """Compute the error function of each entry, as the C library does. If the entries are complex,
    the imaginary part of the result is the derivative times the imaginary part of the entry; for
    the tiny imaginary part of a complex step, this is exact."""
    x = np.asarray(x)
    real = np.asarray(_ERF(np.asarray(x.real, np.float64)), np.float64)
    if not np.iscomplexobj(x):
        return real.astype(x.dtype)
    slope = (2 / math.sqrt(math.pi)) * np.exp(-x.real * x.real)
    return np.asarray(real + 1j * x.imag * slope)


def _reversed_matmul(a: Array, b: Array) -> Array:
    return np.asarray(np.matmul(a[..., ::-1], b[..., ::-1, :]))


def _one_by_one(a: Array, b: Array) -> Array:
    """Return the matrix product ``a @ b``, with the terms of each sum added one by one, as a kernel
    with a single accumulator does.

    Equal terms (e.g. of equal examples) are then all rounded up or all rounded down, so that their
    rounding errors add up. In numpy's own product they may cancel.
    """
    size = max(1, -(-len(b) // MOST_ROWS))
    total = np.zeros((len(a), b.shape[-1]), a.dtype)
    product, buffer = np.multiply if size == 1 else np.matmul, np.empty_like(total)
    for start in range(0, len(b), size):
        total += product(a[:, start : start + size], b[start : start + size], buffer)
    return total


def _one_by_one_from_the_end(a: Array, b: Array) -> Array:
    return _one_by_one(a[:, ::-1], b[::-1])


def _halved_matmul(a: Array, b: Array) -> Array:
    middle = a.shape[-1] // 2
    first = np.matmul(a[..., :middle], b[..., :middle, :])
    return np.asarray(first + np.matmul(a[..., middle:], b[..., middle:, :]))


def _reversed_sum(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    # Sum over one axis at a time, adding single entries from the end of the axis.
    for a in sorted(axis, reverse=True):
        x = np.add.accumulate(np.flip(x, a), a).take([-1], a) if x.shape[a] else x
    return x if keepdims else x.reshape([n for a, n in enumerate(x.shape) if a not in axis])


def _doubled_cumsum(x: Array) -> Array:
    """Return the cumulative sum over the last axis, computed in few parallel steps: step n adds to
    each entry the entry that is 2^n positions before it."""
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
    """Return a tensordot function that computes its sums with ``matmul``, a function for matrix
    products. With ``turn=-1``, it sums over the axes in reverse order."""

    def tensordot(a: Array, b: Array, axes: tuple[Sequence[int], Sequence[int]]) -> Array:
        left_axes, right_axes = (part[::turn] for part in axes)
        kept_a = [n for n in range(a.ndim) if n not in left_axes]
        kept_b = [n for n in range(b.ndim) if n not in right_axes]
        length = int(np.prod([a.shape[n] for n in left_axes]))
        left_matrix = np.transpose(a, (*kept_a, *left_axes)).reshape(-1, length)
        right_matrix = np.transpose(b, (*right_axes, *kept_b)).reshape(length, -1)
        shape = [a.shape[n] for n in kept_a] + [b.shape[n] for n in kept_b]
        return matmul(left_matrix, right_matrix).reshape(shape)

    return tensordot


def _nudged(function: Callable[[Array], Array], bound: float = np.inf) -> Callable[[Array], Array]:
    """Wrap a function such as exp so that each result is about four units in the last place too
    high or too low. This imitates the differences between the exp, log or tanh of different
    libraries, which later operations may magnify.

    The sign of each error is random with a fixed seed. ``bound`` is the largest magnitude that
    results may get, e.g. 1 for tanh.
    """

    def run(x: Array) -> Array:
        y = np.asarray(function(x))
        # Signs are random: errors with alternating signs would cancel in a sum over the entries.
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
        # Sum over the axes in reverse order, because memory layouts differ between frameworks: the
        # innermost axis is the time steps or the examples.
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
    """Return the entries of all sliding windows of ``x``. :mod:`harness.program.windows` defines
    which entries belong to a window, and the attributes in ``each``. With ``lowest``, padding is
    the lowest number, otherwise 0."""
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
    """Compute the reverse of ``_windows``: add the entries of all windows to the positions from
    which ``_windows`` takes them, axis by axis. Then drop the padding."""
    counts = tuple(x.shape[axis] for axis in axes)
    pads = zip(each["padding"], each["length"], each["after"], strict=True)
    lengths = {axis: sum(pad) for axis, pad in zip(axes, pads, strict=True)}
    for axis, places in zip(axes, _places(**{**each, "length": counts}), strict=True):
        rows = np.moveaxis(x, (axis, axes[-1] + 1), (0, 1))
        padded = np.zeros((lengths[axis], *rows.shape[2:]), x.dtype)
        for entry in range(rows.shape[1]):  # the windows' entries with one number do not overlap
            padded[places[:, entry]] += rows[:, entry]
        start = each["padding"][axes.index(axis)]
        unpadded = padded[start : start + each["length"][axes.index(axis)]]
        x = np.moveaxis(unpadded, 0, axis)
    return x


def _places(
    size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    length: Sequence[int],
    **_: Sequence[int],
) -> list[Array]:
    """Return one array for each axis: the positions that the windows read, counted in the padded
    axis. The array has the shape ``[number of windows, window size]``."""
    return [
        np.arange(count)[:, None] * step + np.arange(entries) * distance
        for entries, step, distance, count in zip(size, stride, dilation, length, strict=True)
    ]


def _max(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """Return the maximum of the real parts over ``axis``. The imaginary part of the result is the
    mean over all tied entries, because the gradient of max is divided equally among ties."""
    largest = np.asarray(np.max(np.real(x), axis=axis, keepdims=True))
    if np.iscomplexobj(x):
        tied = np.real(x) == largest
        count = np.sum(tied, axis=axis, keepdims=True)
        largest = largest + 1j * np.sum(np.imag(x) * tied, axis=axis, keepdims=True) / count
    return largest if keepdims else np.asarray(np.squeeze(largest, axis))


def _power(a: Array, b: Array) -> Array:
    """Return ``a ** b`` as IEEE 754 defines it. For a single exponent 0.5, numpy takes the square
    root, which is NaN at -inf instead of inf (numpy issue 21213)."""
    power: Array = np.power(a, b)
    if np.ndim(b) == 0 and b == 0.5:
        power = np.where(np.equal(a, -np.inf), power.dtype.type(np.inf), power)
    return power


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
    "power": _power,
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
# Primitives that return views. They are fast, because they copy no numbers.
_VIEWS = frozenset({"permute_dims", "broadcast_to", "expand_dims", "squeeze", "slice", "flip"})
# The table of primitives. All primitives except views check the time limit before they start.
TABLE: Mapping[str, Callable[..., Any]] = {
    n: f if n in _VIEWS else time_checked(f) for n, f in _PRIMITIVES.items()
}


def run(
    nodes: Sequence[Node],
    known_values: Mapping[int, Array],
    sizes: Mapping[str, int],
    dtype: str = "float64",
    watch: Watch | None = None,
    ends: Iterable[int] | None = None,
) -> dict[int, Array]:
    """Run nodes with numpy. Return a dictionary from value number to array. It has the values
    ``ends``, or all outputs of the nodes if ``ends`` is None.

    ``known_values`` has the inputs and parameters, also by value number. ``dtype`` is float64,
    float32 (for the yardstick) or complex128. ``watch`` is called with each computed value; if it
    returns a value, this value replaces the computed one.
    """
    kind = np.dtype(dtype).type
    interpreter = Interpreter(
        TABLE, sizes, dtype, lambda value: kind(value), watch=watch, deletes=True
    )
    # Ignore warnings: some checks cause overflows in exp, or feed NaN, on purpose.
    with np.errstate(all="ignore"):
        return interpreter.prepared(nodes, ends).run(dict(known_values))


class Oracle(Backend):
    """The oracle as a backend. The session class that runs and trains every other backend can
    therefore also run and train the oracle.

    In float32, the same class computes the yardsticks. ``order`` (a key of :data:`ORDERS`) changes
    the order of sums, or the last digits of functions such as exp. All orders are correct, so any
    correct backend may show the differences between their results.
    """

    name = "oracle"

    def __init__(self, order: str = "plain") -> None:
        self._table: Table = {**TABLE, **{n: time_checked(f) for n, f in ORDERS[order].items()}}

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
