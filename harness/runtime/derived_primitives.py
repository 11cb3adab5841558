"""Primitives that the harness makes from other primitives of a backend: ``windows`` and
``overlap_add`` if the backend lacks them, and an ``argsort`` without a gradient."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.program.axes import inverse
from harness.program.primitives import DERIVABLE
from harness.program.windows import FramedAxis, framed_axes, order_of_taken
from harness.runtime.precision import Table, host_dtype


def complete_table(
    table: Table, lacking: Collection[str], tensor: Callable[[Array], Any], dtype: str
) -> Table:
    """Return the primitives of a backend, together with those that the harness derives.

    ``lacking`` are primitives in ``table`` that do not work in ``dtype``. ``tensor`` converts an
    array to a tensor.
    """
    derived = _Windows(table, tensor, host_dtype(dtype))
    missing = [op for op in DERIVABLE if op not in table or op in lacking]
    complete = {**table, **{op: getattr(derived, op) for op in missing}}
    if "argsort" in table:
        complete["argsort"] = lambda x: table["argsort"](table["stop_gradient"](x))
    return complete


class _Windows:
    """The primitives ``windows`` and ``overlap_add``, which take and sum entries of one axis after
    the other."""

    def __init__(self, table: Table, tensor: Callable[[Array], Any], dtype: str) -> None:
        self._table, self._tensor, self._dtype = table, tensor, dtype

    def windows(self, x: Any, *, lowest: bool, **framing: Sequence[int]) -> Any:
        """Return the sliding windows of ``x``; with ``lowest``, the padding is -inf, otherwise
        0."""
        rank, axes = len(x.shape), framed_axes(framing)
        for axis in reversed(axes):
            x = self._pad(x, axis, -np.inf if lowest else 0.0)
            front = self._to_front(x, (axis.axis,))
            taken = self._table["take"](front, self._entries(axis, axis.length))
            x = self._from_front(taken, (axis.axis, axis.axis + 1))
        order = order_of_taken([axis.axis for axis in axes], rank)
        return self._table["permute_dims"](x, axes=tuple(order))

    def overlap_add(self, x: Any, **framing: Sequence[int]) -> Any:
        """Return the sum of overlapping windows, without the entries in the padding."""
        axes = framed_axes(framing)
        order = order_of_taken([axis.axis for axis in axes], len(x.shape) - len(axes))
        x = self._table["permute_dims"](x, axes=inverse(order))
        for axis in axes:
            front = self._to_front(x, (axis.axis, axis.axis + 1))
            entries = self._entries(axis, int(front.shape[0]))
            rows = axis.padding + axis.length + axis.after
            total = self._table["segment_sum"](front, entries, rows=rows)
            inner = {"start": axis.padding, "stop": axis.padding + axis.length}
            x = self._from_front(self._table["slice"](total, axis=0, **inner), (axis.axis,))
        return x

    def _entries(self, axis: FramedAxis, count: int) -> Any:
        """Return the positions ``[count, size]`` of the entries of each window in the padded
        axis."""
        starts = np.arange(count)[:, None] * axis.stride
        return self._tensor(starts + np.arange(axis.size) * axis.dilation)

    def _pad(self, x: Any, axis: FramedAxis, value: float) -> Any:
        fill, shape = self._tensor(np.asarray(value, self._dtype)), list(map(int, x.shape))
        parts = [x]
        for place, number in ((0, axis.padding), (2, axis.after)):
            if number:
                shape[axis.axis] = number
                parts.insert(place, self._table["broadcast_to"](fill, shape=tuple(shape)))
        return self._table["concat"](parts, axis=axis.axis) if len(parts) > 1 else x

    def _to_front(self, x: Any, axes: tuple[int, ...]) -> Any:
        return self._table["permute_dims"](x, axes=_front_order(axes, len(x.shape)))

    def _from_front(self, x: Any, axes: tuple[int, ...]) -> Any:
        return self._table["permute_dims"](x, axes=inverse(_front_order(axes, len(x.shape))))


def _front_order(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Return the permutation that moves ``axes`` to the front."""
    return (*axes, *(axis for axis in range(rank) if axis not in axes))
