"""Fused operations, for a backend that has them: ``where(x <= 0, 0, x) -> relu(x)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.program.dims import ONE
from harness.program.ir import Node
from harness.program.passes.rewriter import Rewriter, Rule

Attributes = Mapping[str, Any]


def _chosen_bound(g: Rewriter, inputs: tuple[int, ...]) -> tuple[int, float, bool] | None:
    """``(x, bound, below)`` of ``where(x <= bound, bound, x)``, or of that with ``bound <= x``."""
    compared = g.node(inputs[0], "less_equal")
    bound = g.number(inputs[1])
    x = inputs[2]
    if compared is None or bound is None:
        return None
    for position in (0, 1):
        other = g.number(compared.inputs[1 - position])
        if compared.inputs[position] == x and other == bound:
            return x, bound, position == 0
    return None


def _relu(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``where(x <= 0, 0, x) -> relu(x)``."""
    found = _chosen_bound(g, inputs)
    if found is None or found[1] != 0 or not found[2]:
        return None
    return g.emit("relu", found[0])


def _clip(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``where(h <= y, h, y) -> clip(x, l, h)`` for ``y = where(x <= l, l, x)``."""
    outer = _chosen_bound(g, inputs)
    if outer is None or outer[2]:
        return None
    limited = g.node(outer[0], "relu", "where")
    if limited is None:
        return None
    if limited.op == "relu":
        return g.emit("clip", limited.inputs[0], low=0.0, high=outer[1])
    inner = _chosen_bound(g, limited.inputs)
    if inner is None or not inner[2]:
        return None
    return g.emit("clip", inner[0], low=inner[1], high=outer[1])


def _times(g: Rewriter, value: int, number: float) -> int | None:
    """x where a value is ``number * x``."""
    node = g.node(value, "multiply")
    if node is None:
        return None
    for a, b in (node.inputs, node.inputs[::-1]):
        if g.number(a) == number:
            return b
    return None


def _sigmoid(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``0.5 + 0.5 * tanh(0.5 * x) -> sigmoid(x)``."""
    for a, b in (inputs, inputs[::-1]):
        half = _times(g, b, 0.5) if g.number(a) == 0.5 else None
        tanh = g.node(half, "tanh") if half is not None else None
        x = _times(g, tanh.inputs[0], 0.5) if tanh is not None else None
        if x is not None:
            return g.emit("sigmoid", x)
    return None


def _softmax(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``e / sum(e) -> softmax(x)`` for ``e = exp(x - max(x))``, unless a gradient needs ``e``."""
    exp, total = g.node(inputs[0], "exp"), g.node(inputs[1], "sum")
    if exp is None or total is None or total.inputs != (exp.output,) or g.uses[exp.output] != 2:
        return None
    shifted = g.node(exp.inputs[0], "subtract")
    if shifted is None or not _last(g, total):
        return None
    value, most = shifted.inputs[0], g.node(shifted.inputs[1], "max")
    if most is None or most.inputs != (value,) or not _last(g, most):
        return None
    return g.emit("softmax", value)


def _last(g: Rewriter, node: Node) -> bool:
    """Whether a reduction is over the last axis, and keeps it."""
    last = g.rank(node.inputs[0]) - 1
    return node.attributes["axis"] == (last,) and bool(node.attributes["keepdims"])


def _addmm(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """``c + a @ b -> addmm(c, a, b)``."""
    for a, b in (inputs, inputs[::-1]):
        product = g.node(b, "matmul")
        if product is None or g.uses[b] > 1 or any(g.rank(i) != 2 for i in product.inputs):
            continue
        if g.shape(a) in (g.shape(b), g.shape(b)[1:]):
            return g.emit("addmm", a, *product.inputs)
    return None


def _scatter(sign: int) -> Rule:
    """``x + g * one_hot(i) -> scatter_add(x, i, g)``, with one ``g`` for each row."""

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


EARLY: Mapping[str, tuple[str, Rule]] = {
    "relu": ("where", _relu),
    "clip": ("where", _clip),
    "sigmoid": ("add", _sigmoid),
}
LATE: Mapping[str, tuple[tuple[str, Rule], ...]] = {
    "softmax": (("divide", _softmax),),
    "scatter_add": (("add", _scatter(1)), ("subtract", _scatter(-1))),
}


def early_rules(fused: Iterable[str]) -> dict[str, tuple[Rule, ...]]:
    """Rules for the operations that are found before anything else is done to a program."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for name in fused:
        if name in EARLY:
            op, rule = EARLY[name]
            rules[op] = (*rules.get(op, ()), rule)
    return rules


def late_rules(fused: Iterable[str]) -> dict[str, tuple[Rule, ...]]:
    """Rules for the operations that are found when all else is done."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for name in fused:
        for op, rule in LATE.get(name, ()):
            rules[op] = (*rules.get(op, ()), rule)
    return rules


def product_rules(fused: Iterable[str]) -> dict[str, tuple[Rule, ...]]:
    """The rule for sums with a product, which would hide products from other rules."""
    return {"add": (_addmm,)} if "addmm" in fused else {}
