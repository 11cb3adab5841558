"""Windows along axes in Keras' operations, for its symbolic tensors too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Each = tuple[int, ...]


def framing(ops: Any) -> Mapping[str, Callable[..., Any]]:
    """The primitives ``windows`` and ``overlap_add``."""

    def padded(x: Any, pads: Mapping[int, tuple[int, int]], fill: float = 0.0) -> Any:
        if not any(map(sum, pads.values())):
            return x
        return ops.pad(
            x, [pads.get(axis, (0, 0)) for axis in range(len(x.shape))], "constant", fill
        )

    def part(x: Any, axis: int, start: int, stop: int, step: int = 1) -> Any:
        return x[(slice(None),) * axis + (slice(start, stop, step),)]

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
        pads = dict(zip(axes, zip(padding, after, strict=True), strict=True))
        x = padded(x, pads, -float("inf") if lowest else 0.0)
        columns = [*zip(axes, size, stride, dilation, length, strict=True)]
        for axis, entries, step, apart, count in reversed(columns):
            starts = [j * apart for j in range(entries)]
            parts = [part(x, axis, s, s + step * (count - 1) + 1, step) for s in starts]
            x = ops.stack(parts, axis=axes[-1] + 1)
        return x

    def spread(x: Any, axis: int, step: int) -> Any:
        """The entries of an axis with zeros between them."""
        if step == 1:
            return x
        shape: Sequence[Any] = [-1 if n is None else n for n in x.shape]
        count = x.shape[axis]
        x = padded(ops.expand_dims(x, axis + 1), {axis + 1: (0, step - 1)})
        x = ops.reshape(x, (*shape[:axis], count * step, *shape[axis + 1 :]))
        return part(x, axis, 0, step * (count - 1) + 1)

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
        last = axes[-1] + 1
        columns = zip(axes, size, stride, dilation, padding, after, length, strict=True)
        for axis, entries, step, apart, before, behind, inside in columns:
            whole, total = before + inside + behind, None
            used = step * (x.shape[axis] - 1) + 1
            for j in range(entries):
                one = spread(ops.squeeze(part(x, last, j, j + 1), last), axis, step)
                one = padded(one, {axis: (j * apart, whole - j * apart - used)})
                total = one if total is None else total + one
            x = part(total, axis, before, before + inside)
        return x

    return {"windows": windows, "overlap_add": overlap_add}
