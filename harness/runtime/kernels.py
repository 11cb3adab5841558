"""Functions that make primitives of the functions of a framework. Backends of many frameworks use
them."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

Kernel = Callable[..., Any]


def slice_axis(x: Any, axis: int, start: int, stop: int) -> Any:
    """Return the entries ``start:stop`` along one axis: the primitive ``slice``."""
    return x[(slice(None),) * axis + (slice(start, stop), ...)]


def reduction(reduce: Kernel) -> Kernel:
    """Return the primitive ``sum`` or ``max``, made of a framework's reduction. If ``axis`` is
    empty, the primitive returns its operand, but many frameworks reduce over all axes."""

    def run(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
        return reduce(x, axis=axis, keepdims=keepdims) if axis else x

    return run


def take_rows(take: Kernel) -> Kernel:
    """Return the primitive ``take``, made of ``take(x, indices)``, which takes rows of ``x`` by
    ``indices`` with one axis."""

    def run(x: Any, indices: Any) -> Any:
        rows = take(x, indices.reshape((-1,)))
        return rows.reshape((*indices.shape, *x.shape[1:]))

    return run


def one_hot(arange: Kernel, astype: Kernel) -> Kernel:
    """Return the primitive ``one_hot``, made of a framework's ``arange(stop)`` and the primitive
    ``astype``."""

    def run(indices: Any, classes: int, dtype: str) -> Any:
        return astype(indices[..., None] == arange(classes), dtype=dtype)

    return run


def segment_sum(xp: Any) -> Kernel:
    """Return the primitive ``segment_sum`` for a framework that has no scatter-add. ``xp`` has
    functions ``where``, ``zeros_like``, ``sum``, ``stack`` and ``reshape`` as numpy.

    The primitive computes one row after the other, which is slow. A product with one-hot rows would
    spread a NaN to all rows.
    """

    def run(x: Any, indices: Any, rows: int) -> Any:
        count, rest = prod(indices.shape), tuple(x.shape[len(indices.shape) :])
        values = xp.reshape(x, (count, *rest))
        flat = xp.reshape(indices, (count, *(1 for _ in rest)))
        zeros = xp.zeros_like(values)
        sums = [xp.sum(xp.where(flat == row, values, zeros), axis=0) for row in range(rows)]
        return xp.stack(sums)

    return run
