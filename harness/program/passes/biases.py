"""Make biases a row of the weight: ``x @ W + b -> [x, 1] @ [W; b]``. Nothing is added to the
product afterwards. The gradient of ``b`` is the last row of the gradient of ``[W; b]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.program.dims import ONE, Attributes
from harness.program.passes.rewriter import Rewriter, Rule


def _row_of_weight(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Rewrite ``x @ W + b -> [x, 1] @ [W; b]``, if ``x`` comes in and is narrow.

    A copy of ``x`` with ones then costs less than adding. The copy is in the order of the steps,
    which the gradient can use too.
    """
    for bias, value in (inputs, inputs[::-1]):
        product = g.node(value, "matmul")
        if product is None or g.uses[value] > 1 or g.shape(bias) != g.shape(value)[-1:]:
            continue
        rows, weight = product.inputs
        if g.rank(weight) != 2 or not _given(g, rows):
            continue
        if g.count(rows) + g.count(weight) <= g.count(value):
            ones = g.full(1.0, (*g.shape(rows)[:-1], ONE))
            wide = g.emit("concat", rows, ones, axis=g.rank(rows) - 1)
            below = g.emit("expand_dims", bias, axis=0)
            return g.emit("matmul", wide, g.emit("concat", weight, below, axis=0))
    return None


def _given(g: Rewriter, value: int) -> bool:
    """Return whether a value comes in and is no matrix, which may be a weight with a gradient."""
    node = g.node(value, "permute_dims")
    return (node.inputs[0] if node is not None else value) not in g.made and g.rank(value) > 2


RULES: Mapping[str, Sequence[Rule]] = {"add": (_row_of_weight,)}
