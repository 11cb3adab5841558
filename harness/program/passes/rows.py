"""Rewrite rule for matrix products: if the right operand lacks an axis of the left operand, this
axis is merged into the rows of the left operand.

Each of many matrices ``W[e]`` is then multiplied with all rows in a single product: ``x[r, None, :]
@ W[e] -> (x[None, r, :] @ W)[e, r]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from harness.program.axes import inverse, leading_axes, lone_axes
from harness.program.dims import ONE, Attributes, Dim
from harness.program.passes.rewriter import Rewriter, Rule


def _rows(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    left, right = map(g.shape, inputs)
    lone = lone_axes(left, right, ONE) if len(right) > 2 else ()
    if not lone:
        return None
    batch = max(len(left), len(right)) - 2
    left_axes, right_axes = (leading_axes(shape, batch, ONE) for shape in (left, right))
    shared = tuple(a for a in range(batch) if a not in lone)
    axes = (*shared, *lone, batch, batch + 1)
    rows = prod((left_axes[a] for a in lone), start=left[-2])
    x = _reshape_and_permute(g, inputs[0], (*left_axes, *left[-2:]), axes)
    x = g.emit("reshape", x, shape=(*(left_axes[a] for a in shared), rows, left[-1]))
    weights = g.emit("reshape", inputs[1], shape=(*(right_axes[a] for a in shared), *right[-2:]))
    product = g.emit("matmul", x, weights)
    product_shape = (*g.shape(product)[:-2], *(left_axes[a] for a in lone), left[-2], right[-1])
    return _reshape_and_permute(g, product, product_shape, inverse(axes))


def _reshape_and_permute(
    g: Rewriter, value: int, shape: tuple[Dim, ...], axes: tuple[int, ...]
) -> int:
    """Reshape a value to ``shape`` and permute its axes by ``axes``; return the value number of the
    result. If only axes of length 1 move, a reshape is enough."""
    moved = tuple(shape[a] for a in axes)
    long = [a for a in axes if shape[a] != ONE]
    if long == sorted(long):
        return g.emit("reshape", value, shape=moved)
    return g.emit("permute_dims", g.emit("reshape", value, shape=shape), axes=axes)


RULES: Mapping[str, Sequence[Rule]] = {"matmul": (_rows,)}
