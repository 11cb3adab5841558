"""Rewrite rules that replace several primitives by a fused operation of the backend, e.g. ``where(x
<= 0, 0, x) -> relu(x)``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from harness.program import patterns
from harness.program.dims import ONE, Attributes
from harness.program.passes.rewriter import Rewriter, Rule


def _named(find: Callable[[Rewriter, tuple[int, ...]], patterns.Match | None]) -> Rule:
    """Return the rewrite rule that replaces the primitives of each match by one fused operation.
    ``find`` recognises a function such as relu in a composition of primitives; it returns the
    function's name and operand."""

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        match = find(g, inputs)
        return None if match is None else g.emit(match[0], match[1], **match[2])

    return rule


def _softmax(g: Rewriter, inputs: tuple[int, ...]) -> patterns.Match | None:
    """Match a softmax. Return None if another node (e.g. of a gradient) also reads its
    exponentials, because these must then be computed anyway."""
    return patterns.softmax(g, inputs) if g.uses[inputs[0]] == 2 else None


def _addmm(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Replace an addition of a matrix product by one fused operation: ``c + a @ b`` becomes
    ``addmm(c, a, b)``. Return None if the operands are not matrices."""
    for a, b in (inputs, inputs[::-1]):
        product = g.node(b, "matmul")
        if product is None or g.uses[b] > 1 or any(g.rank(i) != 2 for i in product.inputs):
            continue
        if g.shape(a) in (g.shape(b), g.shape(b)[1:]):
            return g.emit("addmm", a, *product.inputs)
    return None


def _scatter(sign: int) -> Rule:
    """Return the rewrite rule ``x + g * one_hot(i) -> scatter_add(x, i, g)``; ``g`` has one entry
    for each row. With ``sign`` -1, the rule replaces ``x - g * one_hot(i)``."""

    def rule(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
        for x, chosen in (inputs, inputs[::-1]) if sign == 1 else (inputs,):
            node = g.node(chosen, "multiply", "one_hot")
            if node is None or g.shape(x) != g.shape(chosen) or g.uses[chosen] > 1:
                continue
            sides = node.inputs if node.op == "multiply" else (g.constant(1.0), chosen)
            for weight, hot in zip(sides, sides[::-1], strict=True):
                ones = g.node(hot, "one_hot")
                if ones is None or (g.rank(weight) and g.shape(weight)[-1] != ONE):
                    continue
                column = g.emit("expand_dims", ones.inputs[0], axis=g.rank(x) - 1)
                if sign == -1:
                    weight = g.emit("negative", weight)
                weight = g.emit("broadcast_to", weight, shape=g.shape(column))
                return g.emit("scatter_add", x, column, weight)
        return None

    return rule


FusedRules = Mapping[str, tuple[tuple[str, Rule], ...]]
# Pairs (primitive, rule) by the fused operation that the rule produces; a rule is tried at nodes of
# its primitive. EARLY rules run before all other passes, LATE rules after them.
EARLY: FusedRules = {
    "relu": (("where", _named(patterns.relu)),),
    "clip": (("where", _named(patterns.clip)),),
    "sigmoid": (("add", _named(patterns.sigmoid)),),
}
LATE: FusedRules = {
    "softmax": (("divide", _named(_softmax)),),
    "scatter_add": (("add", _scatter(1)), ("subtract", _scatter(-1))),
}
# Rules that fuse a sum with a product. They run last, because other rules look for the product.
PRODUCTS: FusedRules = {"addmm": (("add", _addmm),)}


def rules_of(rules_by_fused: FusedRules, fused: Iterable[str]) -> dict[str, tuple[Rule, ...]]:
    """Return the rewrite rules that produce the fused operations ``fused``. The result maps a
    primitive, e.g. ``where``, to the rules that are tried at its nodes."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for op, rule in (each for name in fused for each in rules_by_fused.get(name, ())):
        rules[op] = (*rules.get(op, ()), rule)
    return rules
