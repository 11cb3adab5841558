"""The primitives of sliding windows as Keras operations, also for symbolic tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from harness.extend.program import framed_axes

Each = tuple[int, ...]


def framing(ops: Any) -> Mapping[str, Callable[..., Any]]:
    """Return the implementations of the primitives ``windows`` and ``overlap_add``."""
    return {"windows": partial(_windows, ops), "overlap_add": partial(_overlap_add, ops)}


def _windows(ops: Any, x: Any, *, lowest: bool, **framing: Each) -> Any:
    axes = framed_axes(framing)
    pads = {axis.axis: (axis.padding, axis.after) for axis in axes}
    x = _padded(ops, x, pads, -float("inf") if lowest else 0.0)
    for axis in reversed(axes):
        parts = [_part(x, axis.axis, axis.entries(j, axis.length)) for j in range(axis.size)]
        x = ops.stack(parts, axis=axes[-1].axis + 1)
    return x


def _overlap_add(ops: Any, x: Any, **framing: Each) -> Any:
    axes = framed_axes(framing)
    last = axes[-1].axis + 1
    for axis in axes:
        whole, total = axis.padding + axis.length + axis.after, None
        used = axis.stride * (x.shape[axis.axis] - 1) + 1
        for j in range(axis.size):
            one = ops.squeeze(_part(x, last, slice(j, j + 1)), last)
            start = j * axis.dilation
            pads = {axis.axis: (start, whole - start - used)}
            one = _padded(ops, _spread(ops, one, axis.axis, axis.stride), pads)
            total = one if total is None else total + one
        x = _part(total, axis.axis, slice(axis.padding, axis.padding + axis.length))
    return x


def _padded(ops: Any, x: Any, pads: Mapping[int, tuple[int, int]], fill: float = 0.0) -> Any:
    if not any(map(sum, pads.values())):
        return x
    return ops.pad(x, [pads.get(axis, (0, 0)) for axis in range(len(x.shape))], "constant", fill)


def _part(x: Any, axis: int, entries: slice) -> Any:
    return x[(slice(None),) * axis + (entries,)]


def _spread(ops: Any, x: Any, axis: int, step: int) -> Any:
    """Insert ``step - 1`` zeros between the entries of an axis."""
    if step == 1:
        return x
    shape: Sequence[Any] = [-1 if n is None else n for n in x.shape]
    count = x.shape[axis]
    x = _padded(ops, ops.expand_dims(x, axis + 1), {axis + 1: (0, step - 1)})
    x = ops.reshape(x, (*shape[:axis], count * step, *shape[axis + 1 :]))
    return _part(x, axis, slice(0, step * (count - 1) + 1))
