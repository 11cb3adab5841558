"""Rules that translate products of two arrays: dense layers, attention and matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.extend.models import MASK_THRESHOLD, GraphBuilder, Operand

from . import patterns
from .jaxprs import Value
from .trace import JaxTranslation, NodePlan, permute, reshape, rule
from .trace_dropout import undropped
from .trace_layers import Contraction, contraction, dense_layer


@rule("dot_general", "transpose")
def _product(t: JaxTranslation, v: Value) -> NodePlan | None:
    c = contraction(t, v)
    if c is None:
        return None
    return dense_layer(t, v, None) or _attention(t, c) or _matmul(c)


def _order(c: Contraction) -> tuple[Contraction, list[int], list[int], list[int], list[int]]:
    """Return a product whose left axes come first, and its labels: common, left, right, summed."""
    both = [n for n in c.labels if n in c.left_labels and n in c.right_labels]
    left = [n for n in c.labels if n not in c.right_labels]
    right = [n for n in c.labels if n not in c.left_labels]
    summed = [n for n in c.left_labels if n in c.right_labels and n not in c.labels]
    if left and right and c.labels.index(left[0]) > c.labels.index(right[0]):
        c, left, right = c.swapped(), right, left
    return c, both, left, right, summed


def _matmul(c: Contraction) -> NodePlan:
    c, both, left, right, summed = _order(c)
    lengths = dict(zip(c.left_labels, c.left.shape, strict=True))
    lengths |= dict(zip(c.right_labels, c.right.shape, strict=True))
    size = lambda labels: math.prod(lengths[n] for n in labels)  # noqa: E731
    batch = [lengths[n] for n in both]

    def emit(g: GraphBuilder, operands: list[Operand], about: dict[str, Any]) -> Operand:
        plain = {**about, "values": None}
        one = _axes_in_order(g, operands[0], c.left_labels, [*both, *left, *summed], plain)
        other = _axes_in_order(g, operands[1], c.right_labels, [*both, *summed, *right], plain)
        # Without common axes, a matrix product keeps all axes of its left operand.
        rows = [size(left)] if both else [lengths[n] for n in left]
        first = reshape(g, one, [*batch, *rows, size(summed)], plain)
        second = reshape(g, other, [*batch, size(summed), size(right)], plain)
        shape = [*batch, *rows, size(right)]
        product: Operand = g.add("@", [first, second], {}, **{**about, "shape": shape})
        product = reshape(g, product, [lengths[n] for n in (*both, *left, *right)], plain)
        return _axes_in_order(g, product, [*both, *left, *right], c.labels, plain)

    return NodePlan((c.left, c.right), emit)


def _axes_in_order(
    g: GraphBuilder, operand: Operand, labels: Sequence[int], order: Sequence[int], about: Any
) -> Operand:
    return permute(g, operand, [list(labels).index(n) for n in order], about)


def _attention(t: JaxTranslation, c: Contraction) -> NodePlan | None:
    """Return attention: a softmax of scores, times values."""
    chosen, both, left, right, summed = _order(c)
    weights, keep = undropped(t, chosen.left)
    if patterns.softmax(weights) is None:
        chosen = chosen.swapped()
        left, right = right, left
        weights, keep = undropped(t, chosen.left)
    softmax = patterns.softmax(weights)
    if softmax is None or not (t.alone(chosen.left) and t.alone(weights)) or not both:
        return None
    order = [*both, *left, *summed]
    if list(chosen.left_labels) != order or len(left) != 1 or len(right) != 1 or len(summed) != 1:
        return None
    scores, axis = softmax
    scores, mask = _masked(scores)
    product, scale = patterns.scaled(scores)
    inner = contraction(t, product) if axis == len(order) - 1 else None
    if inner is None or product.shape != chosen.left.shape:
        return None
    # The labels of the scores are those of the softmax.
    query, key = inner.left, inner.right
    labels = dict(zip(inner.labels, order, strict=True))
    width = [n for n in inner.left_labels if n not in inner.labels]
    if len(width) != 1:
        return None
    head = query.shape[inner.left_labels.index(width[0])]
    labels[width[0]] = -1
    one = [labels[n] for n in inner.left_labels]
    other = [labels[n] for n in inner.right_labels]
    if left[0] not in one:
        query, key, one, other = key, query, other, one
    query, factor = patterns.scaled(query)
    key, more = patterns.scaled(key)
    attributes = {
        "scale": scale * factor * more,
        "causal": False,
        "keep": keep,
        "width": head,
    }
    value, labels_of_value = chosen.right, chosen.right_labels

    def emit(g: GraphBuilder, o: list[Operand], about: dict[str, Any]) -> Operand:
        q = _axes_in_order(g, o[0], one, [*both, left[0], -1], about)
        k = _axes_in_order(g, o[1], other, [*both, summed[0], -1], about)
        v = _axes_in_order(g, o[2], labels_of_value, [*both, summed[0], right[0]], about)
        shape = (*g.shape_of(q)[:-1], g.shape_of(v)[-1])
        attention = g.add("attention", [q, k, v, *o[3:]], attributes, **{**about, "shape": shape})
        return _axes_in_order(g, attention, [*both, left[0], right[0]], c.labels, about)

    return NodePlan((query, key, value, *([] if mask is None else [mask])), emit)


def _masked(scores: Value) -> tuple[Value, Value | None]:
    """Return scores before a mask, and the mask: true where a score counts, or a float to add."""
    if scores.op == "select_n" and len(scores.inputs) == 3:
        mask, no, yes = scores.inputs
        lowest = no.uniform()
        if lowest is not None and lowest <= MASK_THRESHOLD:
            return yes, mask.inputs[0] if mask.op == "broadcast" else mask
    return scores, None
