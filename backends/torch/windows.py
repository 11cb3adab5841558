"""Windows along axes as torch's ``unfold``, and their sum with a derivative of its own."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

Tensor = Any
Each = tuple[int, ...]


def windows(
    x: Tensor,
    axes: Each,
    size: Each,
    stride: Each,
    dilation: Each,
    padding: Each,
    after: Each,
    length: Each,
    lowest: bool,
) -> Tensor:
    """See the primitive. ``length`` is what ``unfold`` finds by itself."""
    rank, count, last = x.dim(), len(axes), axes[-1] + 1
    if any((*padding, *after)):
        # torch.nn.functional.pad counts axes from the last one.
        pads = dict(zip(axes, zip(padding, after, strict=True), strict=True))
        flat = [n for axis in reversed(range(rank)) for n in pads.get(axis, (0, 0))]
        fill = float("-inf") if lowest else 0.0
        x = torch.nn.functional.pad(x, flat, value=fill)
    for axis, entries, step, apart in zip(axes, size, stride, dilation, strict=True):
        x = x.unfold(axis, apart * (entries - 1) + 1, step)
    x = x[(..., *(slice(None, None, apart) for apart in dilation))]
    return x.permute(*range(last), *range(rank, rank + count), *range(last, rank))


def overlap_add(
    x: Tensor,
    axes: Each,
    size: Each,
    stride: Each,
    dilation: Each,
    padding: Each,
    after: Each,
    length: Each,
) -> Tensor:
    """See the primitive."""
    return OverlapAdd.apply(x, axes, size, stride, dilation, padding, after, length)


class OverlapAdd(torch.autograd.Function):
    """For each place in a window all windows are added at once; autograd would copy the sum so
    far for each of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *framing: Each) -> Tensor:
        """The sum; ``framing`` are the primitive's attributes in order."""
        axes, size, stride, dilation, padding, after, length = framing
        last, rank = axes[-1] + 1, len(axes)
        ctx.framing, ctx.count = framing, tuple(x.shape[axis] for axis in axes)
        shape = [*x.shape[:last], *x.shape[last + rank :]]
        for axis, before, number, behind in zip(axes, padding, length, after, strict=True):
            shape[axis] = before + number + behind
        total = x.new_zeros(shape)
        for place in product(*map(range, size)):
            here = [slice(None)] * len(shape)
            for axis, j, step, apart, count in zip(
                axes, place, stride, dilation, ctx.count, strict=True
            ):
                here[axis] = slice(j * apart, j * apart + step * (count - 1) + 1, step)
            total[tuple(here)] += x[(slice(None),) * last + place]
        for axis, before, number in zip(axes, padding, length, strict=True):
            total = total.narrow(axis, before, number)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The windows of the gradient."""
        axes, size, stride, dilation, padding, after, _ = ctx.framing
        framing = (axes, size, stride, dilation, padding, after, ctx.count)
        given = windows(gradients[0], *framing, False)
        return given, *(None for _ in ctx.framing)
