"""The maximum of a backend that may leave NaN out, where :mod:`harness.program.loose` allows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Table = Mapping[str, Callable[..., Any]]
LOOSE = "loose_max"


def with_loose(table: Table, fused: Table) -> Table:
    """A table of primitives, with that maximum among a backend's fused operations, if it is."""
    return {**table, LOOSE: fused[LOOSE]} if LOOSE in fused else table


def loose_max(table: Table) -> Callable[..., Any]:
    """``max`` that may leave NaN out where it is over the last axis."""

    def run(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
        op = LOOSE if axis == (len(x.shape) - 1,) else "max"
        return table[op](x, axis=axis, keepdims=keepdims)

    return run
