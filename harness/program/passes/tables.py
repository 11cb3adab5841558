"""Rewrite rules for embeddings: apply an operation to the embedding table, and then take the rows:
``table[i] @ W -> (table @ W)[i]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.program.dims import Attributes, Dim
from harness.program.passes.rewriter import Rewriter, Rule
from harness.program.primitives import BINARY, UNARY


def _large_take(g: Rewriter, value: int) -> tuple[int, int] | None:
    """Return (table, indices) if a value is rows taken from a table, with more indices than the
    table has rows; otherwise None."""
    node = g.node(value, "take")
    if node is None:
        return None
    table, indices = node.inputs
    if g.shape(table)[0].resolve(g.sizes) >= g.count(indices):
        return None
    return table, indices


def _product(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Multiply an embedding table before its rows are taken: ``table[i] @ W`` becomes ``(table @
    W)[i]``."""
    chosen = _large_take(g, inputs[0])
    if chosen is None or g.rank(chosen[0]) != 2 or g.rank(inputs[1]) != 2:
        return None
    return g.emit("take", g.emit("matmul", chosen[0], inputs[1]), chosen[1])


def _elementwise(op: str) -> Rule:
    """Return the rewrite rule that applies the elementwise operation ``op``, here called f, to a
    whole embedding table before its rows are taken: ``f(table[i], b) -> f(table, b)[i]``."""

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        takes = [_large_take(g, i) for i in inputs]
        if takes.count(None) == len(takes):
            return None
        chosen = [c for c in takes if c is not None]
        if len({c[1] for c in chosen}) > 1:
            return None
        rank = max(g.rank(c[0]) for c in chosen)
        shape = g.shape(next(c[0] for c in chosen if g.rank(c[0]) == rank))
        operands = []
        for value, choice in zip(inputs, takes, strict=True):
            if choice is None and not _fits_rows(g, value, shape):
                return None
            operands.append(value if choice is None else choice[0])
        return g.emit("take", g.apply(op, tuple(operands), attributes), chosen[0][1])

    return rule


def _fits_rows(g: Rewriter, value: int, table: tuple[Dim, ...]) -> bool:
    """Return whether a value can be broadcast over the rows of an embedding table with the shape
    ``table``."""
    shape = g.shape(value)
    return len(shape) < len(table) and shape == table[len(table) - len(shape) :]


def _where(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Apply relu to an embedding table before its rows are taken: ``where(table[i] <= 0, 0,
    table[i])`` becomes ``where(table <= 0, 0, table)[i]``."""
    compared = g.node(inputs[0], "less_equal", "less")
    takes = [_large_take(g, i) for i in inputs[1:]]
    if compared is None:
        return None
    tests = [_large_take(g, i) for i in compared.inputs]
    chosen = [c for c in (*tests, *takes) if c is not None]
    if not any(tests) or not any(takes) or len(set(chosen)) > 1:
        return None
    table, indices = chosen[0]
    operands = [*zip(compared.inputs, tests, strict=True), *zip(inputs[1:], takes, strict=True)]
    if not all(c is not None or _fits_rows(g, v, g.shape(table)) for v, c in operands):
        return None
    rows = [v if c is None else table for v, c in operands]
    condition = g.apply(compared.op, tuple(rows[:2]), compared.attributes)
    return g.emit("take", g.emit("where", condition, *rows[2:]), indices)


def _sum(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Rewrite ``sum(table[i]) -> counts(i) @ table``; ``counts(i)`` is how often the indices i
    contain each row number."""
    chosen = _large_take(g, inputs[0])
    if chosen is None or g.rank(chosen[0]) != 2:
        return None
    table, indices = chosen
    if attributes["axis"] != tuple(range(g.rank(indices))) or attributes["keepdims"]:
        return None
    rows = g.shape(table)[0]
    ones = g.full(1.0, g.shape(indices))
    counts = g.emit("segment_sum", ones, indices, rows=rows)
    total = g.emit("matmul", g.emit("expand_dims", counts, axis=0), table)
    return g.emit("squeeze", total, axis=0)


RULES: Mapping[str, Sequence[Rule]] = {
    "matmul": (_product,),
    **{op: (_elementwise(op),) for op in (*UNARY, *BINARY, "relu", "sigmoid", "clip")},
    "where": (_where,),
    "sum": (_sum,),
}
