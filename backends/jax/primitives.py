"""The primitives of the backend ``jax`` as JAX functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from harness.extend import Table
from harness.extend.program import framed_axes, pads_of

# Windows are strided slices, and their sum uses interior padding. XLA fuses both.

Each = tuple[int, ...]


def framing(jax: Any) -> Mapping[str, Callable[..., Any]]:
    """Return a dictionary with the implementations of the primitives ``windows`` (all windows of an
    array, as for a convolution) and ``overlap_add`` (its transpose)."""
    return {"windows": partial(_windows, jax), "overlap_add": partial(_overlap_add, jax)}


def _windows(jax: Any, x: Any, *, lowest: bool, **framing: Each) -> Any:
    lax, jnp = jax.lax, jax.numpy
    axes = framed_axes(framing)
    pads = [(before, behind, 0) for before, behind in pads_of(framing, x.ndim)]
    x = lax.pad(x, jnp.array(-jnp.inf if lowest else 0, x.dtype), pads)
    for axis in reversed(axes):
        each = [axis.entries(j, axis.length) for j in range(axis.size)]
        parts = [lax.slice_in_dim(x, s.start, s.stop, s.step, axis.axis) for s in each]
        x = jnp.stack(parts, axes[-1].axis + 1)
    return x


def _overlap_add(jax: Any, x: Any, **framing: Each) -> Any:
    lax = jax.lax
    axes, zero = framed_axes(framing), jax.numpy.array(0, x.dtype)
    for axis in axes:
        count, total = x.shape[axis.axis], None
        for j in range(axis.size):
            part = lax.index_in_dim(x, j, axes[-1].axis + 1, keepdims=False)
            pads = [(0, 0, 0)] * part.ndim
            low = j * axis.dilation - axis.padding  # negative padding crops
            high = axis.length - low - axis.stride * (count - 1) - 1
            pads[axis.axis] = (low, high, axis.stride - 1)
            part = lax.pad(part, zero, pads)
            total = part if total is None else total + part
        x = total
    return x


# All other primitives.

# Sessions check every index. With this mode, JAX does not check indices again, which halves XLA's
# compile time and makes the training step of a looped LSTM 1.4 times faster.
PROMISE = "promise_in_bounds"


def takes(jnp: Any) -> Mapping[str, Callable[..., Any]]:
    """Return a dictionary with the primitives that gather entries by index, e.g. ``take``. They do
    not check that indices are in range."""
    return {
        "take": lambda x, indices: x.at[indices].get(mode=PROMISE),
        "take_along_axis": lambda x, indices: jnp.take_along_axis(x, indices, -1, mode=PROMISE),
    }


def largest(jnp: Any) -> Callable[..., Any]:
    """Return a ``max`` that returns NaN if an entry is NaN.

    XLA's own ``max`` ignores NaN in one case: if it is compiled alone for a CPU and has at least
    about 5,000 entries.
    """

    def run(x: Any, axis: Any, keepdims: bool) -> Any:
        lost = jnp.isnan(x).any(axis, keepdims=keepdims)
        return jnp.where(lost, jnp.nan, jnp.max(x, axis, keepdims=keepdims))

    return run


# Rows of up to this length are sorted by comparing all pairs, which XLA fuses with neighbouring
# operations. On a CPU, XLA's own sort calls a function for each comparison, and is two to four
# times slower.
SHORT = 8


def argsort(jnp: Any) -> Callable[[Any], Any]:
    """Return a function that returns the indices that sort each row. The sort is stable, with NaN
    last."""

    def run(x: Any) -> Any:
        count = x.shape[-1]
        if count > SHORT:
            return jnp.argsort(x, -1, stable=True)
        places = jnp.arange(count)
        own, other = x[..., :, None], x[..., None, :]
        none, other_none = own != own, other != other
        before = (other < own) | (none & ~other_none)
        ties = (own == other) | (none & other_none)
        rank = jnp.sum(before | (ties & (places < places[:, None])), -1)
        return jnp.sum((rank[..., None, :] == places[:, None]) * places, -1)

    return run


def table(jax: Any) -> Table:
    """Return the table of primitives, from name to function. The caller passes the module ``jax``,
    because its import is slow."""
    jnp = jax.numpy

    def segment_sum(x: Any, indices: Any, rows: int) -> Any:
        zeros = jnp.zeros((rows, *x.shape[indices.ndim :]), x.dtype)
        return zeros.at[indices].add(x, mode=PROMISE)

    return {
        "exp": jnp.exp,
        "log": jnp.log,
        "tanh": jnp.tanh,
        "sqrt": jnp.sqrt,
        "negative": jnp.negative,
        "add": jnp.add,
        "subtract": jnp.subtract,
        "multiply": jnp.multiply,
        "divide": jnp.divide,
        "power": jnp.power,
        "less": jnp.less,
        "less_equal": jnp.less_equal,
        "equal": jnp.equal,
        "where": jnp.where,
        "astype": lambda x, dtype: x.astype(dtype),
        "permute_dims": jnp.transpose,
        "broadcast_to": jnp.broadcast_to,
        "arange": lambda stop: jnp.arange(stop),
        "reshape": lambda x, shape: jnp.reshape(x, shape),
        "erf": jax.lax.erf,
        "sin": jnp.sin,
        "cos": jnp.cos,
        "floor": jnp.floor,
        "cumulative_sum": lambda x: jnp.cumsum(x, -1),
        "argsort": argsort(jnp),
        "expand_dims": jnp.expand_dims,
        "squeeze": jnp.squeeze,
        "concat": jnp.concatenate,
        "slice": lambda x, axis, start, stop: jax.lax.slice_in_dim(x, start, stop, axis=axis),
        "flip": jnp.flip,
        **takes(jnp),
        **framing(jax),
        "one_hot": lambda indices, classes, dtype: jax.nn.one_hot(indices, classes, dtype=dtype),
        "segment_sum": segment_sum,
        "sum": jnp.sum,
        "max": largest(jnp),
        "matmul": jnp.matmul,
        "tensordot": jnp.tensordot,
        "stop_gradient": jax.lax.stop_gradient,
    }


def fused(jnp: Any) -> Table:
    """Return a dictionary with the fused operations (e.g. ``softmax``) that are a single JAX
    function."""
    return {
        "relu": lambda x: jnp.maximum(x, 0),
        "clip": lambda x, low, high: jnp.clip(x, low, high),
        "loose_max": jnp.max,
    }
