"""Compute windows as strided slices, and their sum with interior padding, both of which XLA
fuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from harness.extend.program import framed_axes, pads_of

Each = tuple[int, ...]


def framing(jax: Any) -> Mapping[str, Callable[..., Any]]:
    """Return the primitives ``windows`` and ``overlap_add``."""
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
