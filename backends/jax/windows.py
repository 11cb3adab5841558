"""Windows along axes as slices with a stride, and their sum as pads with one: what XLA fuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Each = tuple[int, ...]


def framing(jax: Any) -> Mapping[str, Callable[..., Any]]:
    """The primitives ``windows`` and ``overlap_add``."""
    lax, jnp = jax.lax, jax.numpy

    def windows(
        x: Any,
        axes: Each,
        size: Each,
        stride: Each,
        dilation: Each,
        padding: Each,
        after: Each,
        length: Each,
        lowest: bool,
    ) -> Any:
        pads = [(0, 0, 0)] * x.ndim
        for axis, before, behind in zip(axes, padding, after, strict=True):
            pads[axis] = (before, behind, 0)
        x = lax.pad(x, jnp.array(-jnp.inf if lowest else 0, x.dtype), pads)
        columns = [*zip(axes, size, stride, dilation, length, strict=True)]
        for axis, entries, step, apart, count in reversed(columns):
            ends = [(j * apart, j * apart + step * (count - 1) + 1) for j in range(entries)]
            parts = [lax.slice_in_dim(x, start, stop, step, axis) for start, stop in ends]
            x = jnp.stack(parts, axes[-1] + 1)
        return x

    def overlap_add(
        x: Any,
        axes: Each,
        size: Each,
        stride: Each,
        dilation: Each,
        padding: Each,
        after: Each,
        length: Each,
    ) -> Any:
        zero = jnp.array(0, x.dtype)
        columns = zip(axes, size, stride, dilation, padding, length, strict=True)
        for axis, entries, step, apart, before, whole in columns:
            count, total = x.shape[axis], None
            for j in range(entries):
                part = lax.index_in_dim(x, j, axes[-1] + 1, keepdims=False)
                pads = [(0, 0, 0)] * part.ndim
                low = j * apart - before  # below 0 it cuts off
                pads[axis] = (low, whole - low - step * (count - 1) - 1, step - 1)
                part = lax.pad(part, zero, pads)
                total = part if total is None else total + part
            x = total
        return x

    return {"windows": windows, "overlap_add": overlap_add}
