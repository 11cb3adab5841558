"""Windows along axes with torch's ``unfold``, and their sum with its own derivative."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from harness.extend.program import FramedAxis, framed_axes

Tensor = Any
Each = tuple[int, ...]
Axes = tuple[FramedAxis, ...]


def windows(x: Tensor, *, lowest: bool, **framing: Each) -> Tensor:
    """Return the windows of x, as the primitive ``windows``."""
    return Unfold.apply(x, framed_axes(framing), lowest)


def overlap_add(x: Tensor, **framing: Each) -> Tensor:
    """Return the sum of the windows, as the primitive ``overlap_add``."""
    return OverlapAdd.apply(x, framed_axes(framing))


def _unfolded(x: Tensor, axes: Axes, lowest: bool) -> Tensor:
    rank, count, last = x.dim(), len(axes), axes[-1].axis + 1
    if any(axis.padding or axis.after for axis in axes):
        # torch.nn.functional.pad counts axes from the last one.
        pads = {axis.axis: (axis.padding, axis.after) for axis in axes}
        flat = [n for axis in reversed(range(rank)) for n in pads.get(axis, (0, 0))]
        fill = float("-inf") if lowest else 0.0
        x = torch.nn.functional.pad(x, flat, value=fill)
    for axis in axes:
        x = x.unfold(axis.axis, axis.dilation * (axis.size - 1) + 1, axis.stride)
    x = x[(..., *(slice(None, None, axis.dilation) for axis in axes))]
    return x.permute(*range(last), *range(rank, rank + count), *range(last, rank))


class Unfold(torch.autograd.Function):
    """Windows, with :class:`OverlapAdd` as the derivative. Compiled, autograd's derivative of
    ``unfold`` along several axes writes out of bounds (torch 2.13)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: Axes, lowest: bool) -> Tensor:
        """Return the windows."""
        ctx.axes = tuple(axis._replace(length=x.shape[axis.axis]) for axis in axes)
        return _unfolded(x, axes, lowest)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return, for each entry, the sum of its gradients."""
        return OverlapAdd.apply(gradients[0], ctx.axes), None, None


class OverlapAdd(torch.autograd.Function):
    """Sum of windows; autograd would copy the partial sum for each place in a window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: Axes) -> Tensor:
        """Return the sum."""
        ctx.axes, last = axes, axes[-1].axis + 1
        count = [x.shape[axis.axis] for axis in axes]
        shape = [*x.shape[:last], *x.shape[last + len(axes) :]]
        for axis in axes:
            shape[axis.axis] = axis.padding + axis.length + axis.after
        total = x.new_zeros(shape)
        for place in product(*(range(axis.size) for axis in axes)):
            here = [slice(None)] * len(shape)
            for axis, j, number in zip(axes, place, count, strict=True):
                here[axis.axis] = axis.entries(j, number)
            total[tuple(here)] += x[(slice(None),) * last + place]
        for axis in axes:
            total = total.narrow(axis.axis, axis.padding, axis.length)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the windows of the gradient."""
        return _unfolded(gradients[0], ctx.axes, False), None
