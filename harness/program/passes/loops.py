"""Rewrite rules that move operations out of loops: ``x[t] @ W -> (x @ W)[t]``.

Sums are reordered so that terms can leave the loop. For example, ``h @ U + x[t] @ W + b`` becomes
``(b + x[t] @ W) + h @ U``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from harness.program.dims import Attributes, Dim
from harness.program.infer import infer
from harness.program.ir import Node
from harness.program.passes.rewriter import Rewriter, Rule
from harness.program.passes.unroll import LONGEST
from harness.program.primitives import ELEMENTWISE

MOVES = frozenset({"permute_dims", "expand_dims", "squeeze"})
STEPWISE = frozenset({"matmul", "add", "subtract", "take", *MOVES})
# Elementwise operations leave a loop only if their results for all steps have at most this many
# entries (4 MiB in float32).
MOST_LIFTED = 1 << 20


def lifts(g: Rewriter, op: str, inputs: tuple[int, ...], attributes: Attributes) -> bool:
    """Return whether an operation on slices of sequences is to be moved out of the loop, to before
    the loop, e.g. ``x[t] @ W -> (x @ W)[t]``."""
    if op in STEPWISE or (op == "multiply" and any(g.number(i) is not None for i in inputs)):
        return True
    if op not in ELEMENTWISE:
        return False
    shape = infer(op, tuple(map(g.type, inputs)), attributes).shape
    steps = g.steps(max(map(g.depth, inputs)))
    return _at_once(steps, prod(dim.resolve(g.sizes) for dim in shape))


def sinks_products(_: Rewriter, node: Node) -> bool:
    """Return whether a node is to be moved out of the loop that stacks its results, to after the
    loop. The function returns True for matrix products and for nodes that only move data.

    This policy is for compilers that fuse elementwise operations; for other backends see
    :func:`sinks`.
    """
    return node.op in ("matmul", *MOVES)


def sinks(g: Rewriter, node: Node) -> bool:
    """Return whether a node is to be moved out of the loop that stacks its results, to after the
    loop, e.g. ``stack(h @ W) -> stack(h) @ W``."""
    if sinks_products(g, node):
        return True
    if node.op != "sum" and node.op not in ELEMENTWISE:
        return False
    depth = g.depth(node.output)
    loop_values = [i for i in (*node.inputs, node.output) if g.depth(i) == depth]
    return _at_once(g.steps(depth), max(map(g.count, loop_values)))


def _at_once(steps: int, count: int) -> bool:
    """Return whether an elementwise operation with ``count`` entries per step is to be computed
    outside its loop, for all ``steps`` steps at once.

    This requires that the loop is too long to be unrolled, and that the results of all steps fit
    into a cache.
    """
    return steps > LONGEST and steps * count <= MOST_LIFTED


def _sum_order(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Reorder a sum in a loop: loop-invariant terms first, then terms of sequences, then all
    others. Outside loops, small terms come first, so that biases are added together: ``(x + b) + c
    -> (b + c) + x``."""
    depth = max(g.depth(i) for i in inputs)
    terms = _terms(g, inputs, depth)
    early = _early_terms(g, terms, depth)
    first = set(early)
    other_terms = [term for term in terms if term not in first]
    if len(early) < 2 or not other_terms or _is_summed(g, inputs, depth, early):
        return None
    total = early[0]
    for term in (*early[1:], *other_terms):
        total = g.emit("add", total, term)
    return total


def _early_terms(g: Rewriter, terms: Sequence[int], depth: int) -> list[int]:
    if depth:
        ranks = [_availability(g, term, depth) for term in terms]
    else:
        counts = [g.count(term) for term in terms]
        largest = max(counts)
        ranks = [0 if 8 * count <= largest else 2 for count in counts]
    return [t for rank in (0, 1) for t, r in zip(terms, ranks, strict=True) if r == rank]


def _terms(g: Rewriter, inputs: Sequence[int], depth: int) -> list[int]:
    """Return the terms of a sum with the operands ``inputs``. An inner sum that no other node reads
    is replaced by its terms. ``depth`` is the number of loops around the sum."""
    return [value for value, part in _terms_and_sums(g, inputs, depth) if part is None]


def _terms_and_sums(
    g: Rewriter, inputs: Sequence[int], depth: int
) -> Iterator[tuple[int, tuple[int, ...] | None]]:
    """Yield the terms of a sum as (value, None), and its inner sums as (value, operands).
    ``inputs`` are the operands of the sum, and ``depth`` is the number of loops around it.

    An inner sum is followed by its own terms. If another node reads an inner sum too, the inner sum
    is a term.
    """
    pending = list(reversed(inputs))
    while pending:
        value = pending.pop()
        node = g.node(value, "add")
        if node is not None and g.depth(value) == depth and g.uses[value] <= 1:
            yield value, node.inputs
            pending += reversed(node.inputs)
        else:
            yield value, None


def _is_summed(g: Rewriter, inputs: Sequence[int], depth: int, early: Sequence[int]) -> bool:
    """Return whether one of the inner sums already adds exactly the terms in ``early``, the terms
    that can be computed before the loop. Nothing needs to be reordered then."""
    # The number of early terms in each inner sum; any other term makes the number negative.
    counts: dict[int, int] = {}
    early_terms = set(early)
    for value, part in reversed([*_terms_and_sums(g, inputs, depth)]):
        if part is None:
            counts[value] = 1 if value in early_terms else -len(early)
        else:
            counts[value] = sum(counts[operand] for operand in part)
            if counts[value] == len(early):
                return True
    return False


def _availability(g: Rewriter, value: int, depth: int) -> int:
    """Return where the term ``value`` of a sum inside ``depth`` loops can be computed: 0 if before
    the innermost loop, 1 if before the loop for all steps at once (the term depends on sequences),
    2 if only inside the loop."""
    if g.depth(value) < depth:
        return 0
    return 1 if value in g.scopes[depth].slices else 2


def _scale_weights(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Multiply the weights instead of their products by a constant c: ``c * (x @ W + b)`` becomes
    ``x @ (c * W) + c * b``, if the weights have fewer entries than the products."""
    for number, value in (inputs, inputs[::-1]):
        if g.number(number) is None or g.rank(number) or g.uses[value] > 1:
            continue
        depth = g.depth(value)
        terms = _terms(g, (value,), depth)
        products = [t for t in terms if _has_small_weight(g, t, value)]
        if not products or not all(t in products or _is_cheap_to_scale(g, t, value) for t in terms):
            continue
        scaled = []
        for term in terms:
            node = g.node(term, "matmul") if term in products else None
            if node is None:
                scaled.append(g.emit("multiply", number, term))
            else:
                weight = g.emit("multiply", number, node.inputs[1])
                scaled.append(g.emit("matmul", node.inputs[0], weight))
        total = scaled[0]
        for term in scaled[1:]:
            total = g.emit("add", total, term)
        return total
    return None


def _has_small_weight(g: Rewriter, term: int, value: int) -> bool:
    """Return whether ``term`` is a matrix product with a weight that is smaller than ``value``, the
    result to be scaled. Scaling the weight is then faster."""
    node = g.node(term, "matmul")
    if node is None or g.uses[term] > 1 or g.rank(node.inputs[1]) != 2:
        return False
    steps, weight = g.steps(g.depth(value)), node.inputs[1]
    return g.depth(weight) == 0 and 2 * g.count(weight) <= steps * g.count(value)


def _is_cheap_to_scale(g: Rewriter, term: int, value: int) -> bool:
    """Return whether scaling ``term`` takes little time compared with scaling ``value``, because
    the term is small or is computed before the loop."""
    depth = g.depth(value)
    small = 8 * g.count(term) <= g.count(value)
    return small or (depth > 0 and _availability(g, term, depth) < 2)


def _split_product(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Split a matrix product in a loop: ``[x, h] @ [W; U]`` becomes ``x @ W + h @ U``, if a part
    such as ``x @ W`` can be computed before the loop."""
    joined = g.node(inputs[0], "concat")
    depth = g.depth(inputs[0])
    if joined is None or not depth or g.rank(inputs[1]) != 2:
        return None
    last = g.rank(inputs[0]) - 1
    is_early = [_availability(g, part, depth) < 2 for part in joined.inputs]
    if joined.attributes["axis"] != last or not any(is_early):
        return None
    start, total = Dim(), None
    for part in joined.inputs:
        stop = start + g.shape(part)[last]
        rows = g.emit("slice", inputs[1], axis=0, start=start, stop=stop)
        product = g.emit("matmul", part, rows)
        total = product if total is None else g.emit("add", total, product)
        start = stop
    return total


def _join_products(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Join two products with weights in a loop to one larger product: ``x @ W + h @ U`` becomes
    ``[x, h] @ [W; U]``."""
    first, second = (g.node(value, "matmul") for value in inputs)
    if first is None or second is None or any(g.uses[value] > 1 for value in inputs):
        return None
    (left, upper), (right, lower) = first.inputs, second.inputs
    depth, last = g.depth(inputs[0]), g.rank(left) - 1
    if not depth or any(g.rank(w) != 2 or g.depth(w) == depth for w in (upper, lower)):
        return None
    if g.shape(left)[:last] != g.shape(right)[:last]:
        return None
    weight = g.emit("concat", upper, lower, axis=0)
    return g.emit("matmul", g.emit("concat", left, right, axis=last), weight)


RULES: Mapping[str, Sequence[Rule]] = {"add": (_sum_order,), "matmul": (_split_product,)}
# Rules that replace the rules above if products stay in their loops and loops are not unrolled.
STAYING: Mapping[str, Sequence[Rule]] = {"add": (_join_products,)}
# Rules that change patterns of fused operations, and therefore run after those are found.
SCALES: Mapping[str, Sequence[Rule]] = {"multiply": (_scale_weights,)}
