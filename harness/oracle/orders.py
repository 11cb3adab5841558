"""Other orders in which the oracle may compute the same: what rounding alone does shows in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from harness.arrays import Array
from harness.runtime.interpreter import Table

# The additions of a sum that is made row by row; of a longer one, some rows at a time.
MOST_ROWS = 4096
_ERF = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """C's erf, entry by entry. Beside the real axis the first term of Taylor's series, which is
    exact for a complex step: what erf is the integral of."""
    x = np.asarray(x)
    whole = np.asarray(_ERF(np.asarray(x.real, np.float64)), np.float64)
    if not np.iscomplexobj(x):
        return whole.astype(x.dtype)
    slope = (2 / math.sqrt(math.pi)) * np.exp(-x.real * x.real)
    return np.asarray(whole + 1j * x.imag * slope)


def _reversed_matmul(a: Array, b: Array) -> Array:
    return np.asarray(np.matmul(a[..., ::-1], b[..., ::-1, :]))


def _one_by_one(a: Array, b: Array) -> Array:
    """Row by row, as kernels with one accumulator do: terms that are alike, as those of examples
    that are, are then rounded to the same side. numpy's own products may hide that."""
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
    """Sums of 1, 2, 4, ... neighbours, as an associative scan makes them."""
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
    """The axes that are summed over in their order; in the other one for ``turn`` -1."""

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
    """A function four units in the last place off, up or down by a fixed coin.

    No two libraries have the same exp, log or tanh, and what is computed from them may magnify
    that.
    """

    def run(x: Array) -> Array:
        y = np.asarray(function(x))
        # Not up and down in turn: a sum over the entries would take that out again.
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
        # Examples beside each other in place of their time steps, which some lay out so.
        "tensordot": _ordered_tensordot(_one_by_one, turn=-1),
    },
    "halved": {
        "matmul": _halved_matmul,
        "tensordot": _ordered_tensordot(_halved_matmul),
        "cumulative_sum": _halved_cumsum,
    },
}
