"""Rule that appends a bias to its weight as a row: ``x @ W + b -> [x, 1] @ [W; b]``.

The product then needs no separate addition. The gradient of ``b`` is the last row of the gradient
of ``[W; b]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.program.dims import ONE, Attributes
from harness.program.passes.rewriter import Rewriter, Rule


def _row_of_weight(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Append a bias to its weight as a row: ``x @ W + b`` becomes ``[x, 1] @ [W; b]``, if ``x`` is
    an input of the program with few columns.

    To copy such an ``x`` with a column of ones takes less time than to add ``b``. The gradient of
    the weight reads the same copy.
    """
    for bias, value in (inputs, inputs[::-1]):
        product = g.node(value, "matmul")
        if product is None or g.uses[value] > 1 or g.shape(bias) != g.shape(value)[-1:]:
            continue
        rows, weight = product.inputs
        if g.rank(weight) != 2 or not _is_wide_input(g, rows):
            continue
        if g.count(rows) + g.count(weight) <= g.count(value):
            ones = g.full(1.0, (*g.shape(rows)[:-1], ONE))
            wide = g.emit("concat", rows, ones, axis=g.rank(rows) - 1)
            below = g.emit("expand_dims", bias, axis=0)
            return g.emit("matmul", wide, g.emit("concat", weight, below, axis=0))
    return None


def _is_wide_input(g: Rewriter, value: int) -> bool:
    """Return whether a value is an input of the program with more than two axes (an input with two
    axes may be a weight), possibly permuted."""
    node = g.node(value, "permute_dims")
    return (node.inputs[0] if node is not None else value) not in g.made and g.rank(value) > 2


RULES: Mapping[str, Sequence[Rule]] = {"add": (_row_of_weight,)}
