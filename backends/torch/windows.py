"""Sliding windows with torch's ``unfold``, and sums of windows with a backward pass of their
own."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from harness.extend.program import FramedAxis, framed_axes

Tensor = Any
Each = tuple[int, ...]
Axes = tuple[FramedAxis, ...]


def windows(x: Tensor, *, lowest: bool, **framing: Each) -> Tensor:
    """Return the sliding windows of x, as the primitive ``windows`` defines them."""
    return Unfold.apply(x, framed_axes(framing), lowest)


def overlap_add(x: Tensor, **framing: Each) -> Tensor:
    """Return the sum of overlapping windows, as the primitive ``overlap_add`` defines it."""
    return OverlapAdd.apply(x, framed_axes(framing))


def _unfolded(x: Tensor, axes: Axes, lowest: bool) -> Tensor:
    rank, count, last = x.dim(), len(axes), axes[-1].axis + 1
    if any(axis.padding or axis.after for axis in axes):
        # torch.nn.functional.pad takes the axes in reverse order, starting with the last.
        pads = {axis.axis: (axis.padding, axis.after) for axis in axes}
        flat = [n for axis in reversed(range(rank)) for n in pads.get(axis, (0, 0))]
        fill = float("-inf") if lowest else 0.0
        x = torch.nn.functional.pad(x, flat, value=fill)
    for axis in axes:
        x = x.unfold(axis.axis, axis.dilation * (axis.size - 1) + 1, axis.stride)
    x = x[(..., *(slice(None, None, axis.dilation) for axis in axes))]
    return x.permute(*range(last), *range(rank, rank + count), *range(last, rank))


class Unfold(torch.autograd.Function):
    """An autograd function that returns sliding windows; its backward pass is :class:`OverlapAdd`.
    In compiled code, autograd's own derivative of ``unfold`` along several axes writes out of
    bounds (torch 2.13)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: Axes, lowest: bool) -> Tensor:
        """Return the windows of x."""
        ctx.axes = tuple(axis._replace(length=x.shape[axis.axis]) for axis in axes)
        return _unfolded(x, axes, lowest)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradient of x: for each entry, the sum of the gradients in all windows."""
        return OverlapAdd.apply(gradients[0], ctx.axes), None, None


class OverlapAdd(torch.autograd.Function):
    """An autograd function that sums overlapping windows. Without it, autograd would copy the
    partial sum for each entry of a window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: Axes) -> Tensor:
        """Return the sum of the windows."""
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
        """Return the gradient of the windows, i.e. the windows of the sum's gradient."""
        return _unfolded(gradients[0], ctx.axes, False), None
