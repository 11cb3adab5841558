"""The primitives of the backend ``torch`` as torch functions, and torch's fused operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch

from harness.extend import Table
from harness.extend.helpers import reduction, take_rows
from harness.extend.program import FramedAxis, framed_axes, inverse, leading_axes, lone_axes

# Sliding windows use torch's ``unfold``, with a backward pass that sums overlapping windows.

Each = tuple[int, ...]
Axes = tuple[FramedAxis, ...]


def windows(x: Tensor, *, lowest: bool, **framing: Each) -> Tensor:
    """Return the sliding windows of x (as for a convolution), as the primitive ``windows`` defines
    them. ``framing`` has size, stride, dilation and padding. With ``lowest``, the padding is -inf,
    otherwise 0."""
    return Unfold.apply(x, framed_axes(framing), lowest)


def overlap_add(x: Tensor, **framing: Each) -> Tensor:
    """Return the sum of overlapping windows, as the primitive ``overlap_add`` (the transpose of
    ``windows``) defines it. ``framing`` has size, stride, dilation and padding."""
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
    """An autograd function that returns sliding windows.

    Its backward pass is :class:`OverlapAdd`. In compiled code, torch's own derivative of ``unfold``
    along several axes writes out of bounds (torch 2.13).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: Axes, lowest: bool) -> Tensor:
        """Return the windows of x."""
        ctx.axes = tuple(axis._replace(length=x.shape[axis.axis]) for axis in axes)
        return _unfolded(x, axes, lowest)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradient of x: for each entry, the sum of the gradients in all windows that
        contain it."""
        return OverlapAdd.apply(gradients[0], ctx.axes), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        """Return the windows of the tangent of x."""
        return _unfolded(tangents[0], ctx.axes, False)


class OverlapAdd(torch.autograd.Function):
    """An autograd function that sums overlapping windows. If the sum consisted of plain torch
    operations, autograd would copy partial sums."""

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
        """Return the gradient of the windows: the sliding windows of the gradient of the sum."""
        return _unfolded(gradients[0], ctx.axes, False), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        """Return the sum of the tangents of the windows."""
        return OverlapAdd.apply(tangents[0], ctx.axes)


Tensor = Any

# All other primitives.

ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "exp": torch.exp,
    "log": torch.log,
    "tanh": torch.tanh,
    "sqrt": torch.sqrt,
    "negative": torch.neg,
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "power": torch.pow,
    "less": torch.lt,
    "less_equal": torch.le,
    "equal": torch.eq,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "floor": torch.floor,
}
# The fused operations, for code that runs without an executor.
FUSED: Mapping[str, Callable[..., Any]] = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "clip": lambda x, low, high: torch.clamp(x, low, high),
    "sigmoid_gradient": torch.ops.aten.sigmoid_backward,
    "tanh_gradient": torch.ops.aten.tanh_backward,
    "relu_gradient": lambda g, y: torch.ops.aten.threshold_backward(g, y, 0),
    "clip_gradient": lambda g, x, low, high: torch.ops.aten.hardtanh_backward(g, x, low, high),
    "addmm": torch.addmm,
    "scatter_add": lambda x, indices, y: torch.scatter_add(x, -1, indices, y),
    "softmax": lambda x: torch.softmax(x, -1),
    "log_sum_exp": lambda x: torch.logsumexp(x, -1, keepdim=True),
}


def _one_hot(indices: Tensor, classes: int, dtype: str) -> Tensor:
    every = torch.arange(classes, device=indices.device)
    return (indices.unsqueeze(-1) == every).to(getattr(torch, dtype))


def _segment_sum(x: Tensor, indices: Tensor, rows: int) -> Tensor:
    rest = x.shape[indices.dim() :]
    values = x.reshape(indices.numel(), *rest)
    return x.new_zeros((rows, *rest)).index_add_(0, indices.reshape(-1), values)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return ``torch.matmul(a, b)``. If ``a`` has more axes than ``b``, they become rows of one
    matrix, because torch would repeat ``b`` in memory along these axes."""
    lone = lone_axes(a.shape, b.shape, 1) if b.dim() > 2 else ()
    if not lone:
        return torch.matmul(a, b)
    batch = max(a.dim(), b.dim()) - 2
    own, other = (leading_axes(x.shape, batch, 1) for x in (a, b))
    shared = [i for i in range(batch) if i not in lone]
    axes = (*shared, *lone, batch, batch + 1)
    rows = a.reshape(*own, *a.shape[-2:]).permute(axes)
    laid_out = rows.shape[len(shared) : -1]
    rows = rows.reshape(*rows.shape[: len(shared)], laid_out.numel(), a.shape[-1])
    product = torch.matmul(rows, b.reshape(*(other[i] for i in shared), *b.shape[-2:]))
    product = product.reshape(*product.shape[: len(shared)], *laid_out, b.shape[-1])
    return product.permute(inverse(axes))


# All primitives except arange, which has no operand that determines the device.
PRIMITIVES: Table = {
    **ELEMENTWISE,
    "where": torch.where,
    "astype": lambda x, dtype: x.to(getattr(torch, dtype)),
    "permute_dims": lambda x, axes: x.permute(axes),
    "broadcast_to": lambda x, shape: x.expand(shape),
    "reshape": lambda x, shape: x.reshape(shape),
    "expand_dims": lambda x, axis: x.unsqueeze(axis),
    "squeeze": lambda x, axis: x.squeeze(axis),
    "concat": lambda arrays, axis: torch.cat(arrays, axis),
    "slice": lambda x, axis, start, stop: x.narrow(axis, start, stop - start),
    "flip": lambda x, axis: x.flip(axis),
    "take": take_rows(lambda x, indices: torch.index_select(x, 0, indices)),
    "take_along_axis": lambda x, indices: torch.gather(x, -1, indices),
    "cumulative_sum": lambda x: torch.cumsum(x, -1),
    "argsort": lambda x: torch.argsort(x, stable=True),
    "one_hot": _one_hot,
    "segment_sum": _segment_sum,
    "sum": reduction(torch.sum),
    "max": reduction(torch.amax),
    "matmul": _matmul,
    "tensordot": lambda a, b, axes: torch.tensordot(a, b, dims=axes),
    "stop_gradient": lambda x: x.detach(),
    "windows": windows,
    "overlap_add": overlap_add,
}
