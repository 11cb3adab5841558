"""A termination measure for program rewriting: each rewrite must make it smaller.

Emitting a node applies rules, and the rules are applied again to the nodes that a rule emits.
Rewriting ends if each emitted node is smaller than the node that it replaces. :func:`of` returns
the measure of a node: a tuple of non-negative numbers, compared from left to right.

0. The number of loops around the node. A node that leaves a loop is finished.
1. Matmuls whose left side has leading axes that the right side lacks; these axes become rows.
2. Sums that a rule folds into a matmul against the direction of other rules: ``c * a + r * b``, and
   ``x @ W + b`` and similar sums if such rules are in use.
3. The weight: an interpretation by polynomials (Lankford, "On proving term rewriting systems are
   noetherian", 1979) that grow with each operand. Moving out, leaving out and distributing reduce
   the weight. A permutation weighs nothing.
4. The number of entries that are multiplied by numbers: a factor moves to the smaller array.
5. The number of nodes above permutations that move down; 6. the number of these permutations.
7. The number of partial sums that contain a late term next to an early term.
8. The number of nodes above takes, which also move down.
9. The number of nodes below permutations of inputs, which move up; 10. the number of nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from harness.program.axes import lone_axes
from harness.program.dims import ONE
from harness.program.ir import Node
from harness.program.passes import biases, classes, loops
from harness.program.passes.rewriter import Rewriter
from harness.program.passes.transposes import _given as given

# A depth that no rule inspects. A value below this depth counts as a variable.
DEPTH = 7
Weight = Fraction


def _product(*weights: Weight) -> Weight:
    result = Weight(1)
    for weight in weights:
        result *= weight
    return result


# Every variable weighs 4 or more.
WEIGHTS: Mapping[str, Callable[..., Weight]] = {
    "constant": lambda: Weight(3),
    "extent": lambda: Weight(5),
    "negative": lambda x: x + 2,
    "add": lambda x, y: x + y + 1,
    "subtract": lambda x, y: x + y,
    "multiply": _product,
    "divide": lambda x, y: x * y + 1,
    "power": lambda x, y: x * x * y,
    **dict.fromkeys(("broadcast_to", "reshape", "expand_dims", "squeeze"), lambda x: x + 1),
    **dict.fromkeys(("permute_dims", "slice", "flip"), lambda x: x),
    **dict.fromkeys(("relu", "clip"), lambda x: x + 1),
    "concat": lambda *parts: sum(parts, Weight(1)),
    **dict.fromkeys(("cumulative_sum", "argsort"), lambda x: x + 1),
    "take": lambda table, i: table + i,
    "take_along_axis": lambda x, i: x * x / 2,
    "one_hot": lambda i: Weight(20),
    "segment_sum": lambda x, i: x + i,
    "sum": lambda x: x * x,
    "matmul": _product,
    "tensordot": lambda x, y: x * x * y * y,
    "addmm": lambda c, a, b: c + a * b,
    "scatter_add": lambda x, i, y: x + y,
    "where": lambda condition, a, b: condition + a + b,
    **dict.fromkeys(("less", "less_equal", "equal"), lambda x, y: x + y + 1),
}


def _usual(*operands: Weight) -> Weight:
    return 2 * sum(operands, Weight(0))


@dataclass
class Term:
    """The tree of nodes that compute a node; it ends at values that count as variables."""

    rewriter: Rewriter
    variables: frozenset[int]
    known: dict[tuple[str, int], Any] = field(default_factory=dict)

    def node(self, value: int) -> Node | None:
        """Return the node that computes a value.

        For a slice of a loop's step, return the node that computes the whole sequence.
        """
        value = _source(self.rewriter, value)
        node = None if value in self.variables else self.rewriter.made.get(value)
        return node if node is not None and node.op != "scan" else None

    def fold(self, name: str, node: Node, own: Callable[[Node, list[Any]], Any], leaf: Any) -> Any:
        """Compute a number for a node from the numbers of its operands; a variable has
        ``leaf()``."""
        found = []
        for value in node.inputs:
            if (name, value) not in self.known:
                inner = self.node(value)
                figure = leaf(value) if inner is None else self.fold(name, inner, own, leaf)
                self.known[name, value] = figure
            found.append(self.known[name, value])
        return own(node, found)

    def weight(self, node: Node) -> Weight:
        def leaf(value: int) -> Weight:
            if self._index(value):
                return Weight(2)
            value = _source(self.rewriter, value)
            return Weight(4 if value in self.rewriter.made else 4 + value * 7919 % 13)

        def own(node: Node, weights: list[Weight]) -> Weight:
            if node.outputs and self._index(node.output):
                return Weight(2)
            return WEIGHTS.get(node.op, _usual)(*weights)

        return self.fold("weight", node, own, leaf)

    def _index(self, value: int) -> bool:
        return self.rewriter.type(value).kind == "index"

    def total(self, name: str, node: Node, own: Callable[[Node], int]) -> int:
        """Sum ``own`` over all nodes; a node counts as often as it is read."""
        return self.fold(name, node, lambda n, sums: own(n) + sum(sums), lambda value: 0)

    def down(self, node: Node) -> bool:
        """Return whether a node is a permutation that moves down."""
        return node.op == "permute_dims" and not given(self.rewriter, node.inputs[0])

    def above(self, name: str, node: Node, moves: Callable[[Node], bool]) -> int:
        """Sum, over the nodes that ``moves`` selects, the number of nodes above them."""

        def own(node: Node, found: list[tuple[int, int]]) -> tuple[int, int]:
            movers, above = (sum(column) for column in zip((0, 0), *found, strict=True))
            return (movers + 1, above) if moves(node) else (movers, above + movers)

        return self.fold(name, node, own, lambda value: (0, 0))[1]

    def nodes(self, node: Node) -> int:
        return self.total("nodes", node, lambda n: 1)

    def below(self, node: Node) -> int:
        """Sum, over the permutations of inputs, the number of nodes below them."""

        def own(node: Node) -> int:
            rises = node.op == "permute_dims" and not self.down(node)
            return self.nodes(node) if rises else 0

        return self.total("below", node, own)

    def scaled(self, node: Node) -> int:
        g = self.rewriter

        def own(node: Node) -> int:
            if node.op != "multiply":
                return 0
            rest = [i for i in node.inputs if g.number(i) is None]
            return sum(g.count(i) for i in rest) if len(rest) == 1 else 0

        return self.total("scaled", node, own)

    def distinct(self, node: Node) -> list[Node]:
        found, waiting = {}, [*node.inputs]
        while waiting:
            value = waiting.pop()
            inner = self.node(value)
            if inner is not None and value not in found:
                found[value] = inner
                waiting += inner.inputs
        return [node, *found.values()]

    def by_row(self, node: Node) -> int:
        """Return 1 for a matmul in which each row meets its own matrix, else 0."""
        if node.op != "matmul":
            return 0
        left, right = map(self.rewriter.shape, node.inputs)
        return int(len(right) > 2 and bool(lone_axes(left, right, ONE)))

    def folded(self, node: Node) -> int:
        """Return the number of sums that a rule folds into a matmul."""
        g = self.rewriter
        rules = g.rules.get("add", ())

        def redex(node: Node) -> bool:
            if node.op != "add":
                return False
            both = [g.node(i, "multiply") for i in node.inputs]
            for one, other in (both, both[::-1]):
                if one is None or other is None or classes._common_factor not in rules:
                    continue
                multiple = any(g.number(i) is not None for i in one.inputs)
                pairs = (other.inputs, other.inputs[::-1])
                if multiple and any(classes._by_row(g, r, b) for r, b in pairs):
                    return True
            products = [g.node(i, "matmul") is not None for i in node.inputs]
            if biases._row_of_weight in rules and any(products):
                return any(g.rank(i) == 1 for i in node.inputs)
            return loops._join_products in rules and all(products)

        return sum(redex(n) for n in self.distinct(node))

    def mixed(self, node: Node) -> int:
        """Return the number of partial sums that contain a late term next to an early term."""
        g = self.rewriter
        if node.op != "add":
            return 0
        depth = max(g.depth(i) for i in node.inputs)
        parts = [*loops._terms_and_sums(g, node.inputs, depth)]
        early = set(loops._early_terms(g, [v for v, part in parts if part is None], depth))
        late: dict[int, bool] = {}
        for value, part in reversed(parts):
            late[value] = value not in early if part is None else any(late[i] for i in part)
        return 1 + sum(late[value] for value, part in parts if part is not None)


def _source(rewriter: Rewriter, value: int) -> int:
    """Return the sequence if a value is a step's slice of it; otherwise, the value."""
    for scope in reversed(rewriter.scopes):
        value = scope.slices.get(value, value)
    return value


def _cut(rewriter: Rewriter, inputs: Sequence[int]) -> frozenset[int]:
    """Return the values that are too deep below ``inputs`` for any rule to inspect."""
    level, seen = list(inputs), set(inputs)
    for _ in range(DEPTH):
        made = [rewriter.made.get(_source(rewriter, value)) for value in level]
        below = [i for node in made if node is not None for i in node.inputs]
        level = [i for i in dict.fromkeys(below) if i not in seen]
        seen.update(level)
    # A constant counts as its number at any depth.
    return frozenset(value for value in level if rewriter.node(value, "constant") is None)


def of(
    rewriter: Rewriter, request: tuple[str, tuple[int, ...], Mapping[str, Any]], like: Sequence[int]
) -> tuple[Any, ...]:
    """Return the measure of a requested node; values deep below ``like`` count as variables."""
    op, inputs, attributes = request
    node, term = Node(op, inputs, (), attributes), Term(rewriter, _cut(rewriter, like))
    return (
        max((rewriter.depth(value) for value in inputs), default=0),
        term.total("by row", node, term.by_row),
        term.folded(node),
        term.weight(node),
        term.scaled(node),
        term.above("permutations above", node, term.down),
        term.total("permutations", node, lambda n: int(term.down(n))),
        term.mixed(node),
        term.above("takes above", node, lambda n: n.op == "take"),
        term.below(node),
        term.nodes(node),
    )
