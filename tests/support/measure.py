"""How far from its end a rewriting is: what every rule of the passes makes smaller.

Emitting a node applies rules; what a rule emits is put to the rules in turn. That ends if whatever
is rewritten on the way is smaller than that which it is emitted for, by an order without endless
descents. :func:`of` is that order: a tuple of numbers from 0 on, of which the first that differs
decides.

0. The loops around it: what leaves one is done with.
1. Products with leading axes that only the left side has, which become rows.
2. Sums that a rule folds into a product against the grain of the others: ``c * a + r * b``, and
   ``x @ W + b`` and its like where those rules are in use.
3. The weight: an interpretation by polynomials (Lankford, "On proving term rewriting systems are
   noetherian", 1979) that grow with each operand, such that what is moved out, left out or
   distributed has the smaller one. A permutation weighs nothing.
4. Entries that are multiplied by numbers: factors go where there are fewer.
5. Below how much permutations stand that go down; 6. how many these are.
7. Partial sums that hold a late term beside an early one.
8. Below how much takes stand, which go down too.
9. Above how much permutations of what is given stand, which go up; 10. the number of nodes.
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

# Deeper than any rule looks. What is below counts as a variable with a value of its own.
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
    """What a node is made of, cut off at values that count as variables."""

    rewriter: Rewriter
    variables: frozenset[int]
    known: dict[tuple[str, int], Any] = field(default_factory=dict)

    def node(self, value: int) -> Node | None:
        """What makes a value; of a step's slice, what makes the whole sequence."""
        value = _source(self.rewriter, value)
        node = None if value in self.variables else self.rewriter.made.get(value)
        return node if node is not None and node.op != "scan" else None

    def fold(self, name: str, node: Node, own: Callable[[Node, list[Any]], Any], leaf: Any) -> Any:
        """A figure of a node from those of its operands; of a variable it is ``leaf(value)``."""
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
        """A sum over all nodes, each as often as it is read."""
        return self.fold(name, node, lambda n, sums: own(n) + sum(sums), lambda value: 0)

    def down(self, node: Node) -> bool:
        """Whether it is a permutation that goes down."""
        return node.op == "permute_dims" and not given(self.rewriter, node.inputs[0])

    def above(self, name: str, node: Node, moves: Callable[[Node], bool]) -> int:
        """How much stands above what moves down, summed over that."""

        def own(node: Node, found: list[tuple[int, int]]) -> tuple[int, int]:
            movers, above = (sum(column) for column in zip((0, 0), *found, strict=True))
            return (movers + 1, above) if moves(node) else (movers, above + movers)

        return self.fold(name, node, own, lambda value: (0, 0))[1]

    def nodes(self, node: Node) -> int:
        return self.total("nodes", node, lambda n: 1)

    def below(self, node: Node) -> int:
        """What stands below permutations of what is given, summed over these."""

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
        """Whether it is a product of which each row meets a matrix by itself."""
        if node.op != "matmul":
            return 0
        left, right = map(self.rewriter.shape, node.inputs)
        return int(len(right) > 2 and bool(lone_axes(left, right, ONE)))

    def folded(self, node: Node) -> int:
        """Sums that are folded into a product."""
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
            return loops._beside in rules and all(products)

        return sum(redex(n) for n in self.distinct(node))

    def mixed(self, node: Node) -> int:
        """Parts of a sum that hold a late term beside an early one."""
        g = self.rewriter
        if node.op != "add":
            return 0
        depth = max(g.depth(i) for i in node.inputs)
        parts = [*loops._parts(g, node.inputs, depth)]
        early = set(loops._early_terms(g, [v for v, part in parts if part is None], depth))
        late: dict[int, bool] = {}
        for value, part in reversed(parts):
            late[value] = value not in early if part is None else any(late[i] for i in part)
        return 1 + sum(late[value] for value, part in parts if part is not None)


def _source(rewriter: Rewriter, value: int) -> int:
    """The sequence that a value is a step's slice of, else the value itself."""
    for scope in reversed(rewriter.scopes):
        value = scope.slices.get(value, value)
    return value


def _cut(rewriter: Rewriter, inputs: Sequence[int]) -> frozenset[int]:
    """The values that stand too deep below some inputs for any rule to see."""
    level, seen = list(inputs), set(inputs)
    for _ in range(DEPTH):
        made = [rewriter.made.get(_source(rewriter, value)) for value in level]
        below = [i for node in made if node is not None for i in node.inputs]
        level = [i for i in dict.fromkeys(below) if i not in seen]
        seen.update(level)
    # Numbers count as what they are, wherever they stand.
    return frozenset(value for value in level if rewriter.node(value, "constant") is None)


def of(
    rewriter: Rewriter, request: tuple[str, tuple[int, ...], Mapping[str, Any]], like: Sequence[int]
) -> tuple[Any, ...]:
    """The measure of a node that is asked for, with what is deep below ``like`` as variables."""
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
