"""Replacement of several primitives by one operation that every framework has, e.g. ``relu``, in
exported source code.

The new operations are ``relu``, ``clip``, ``sigmoid``, ``softmax``, ``log_softmax``, ``mean``,
``select`` and the keys of :data:`EXPRESSIONS`. ``softmax_along`` and ``log_softmax_along`` have an
axis, which is not the last one. ``select`` takes one index of an axis and drops the axis: ``x[:,
-1]``. Comparisons of indices compare integers, not floats.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.program import patterns
from harness.program.dims import Dim
from harness.program.ir import Block, Node, Type, needed_nodes
from harness.program.patterns import Match, NodesByValue

# The operation, operands and attributes of a replacement. ``same`` stands for its only operand.
Replacement = tuple[str, tuple[int, ...], dict[str, Any]]
Rule = Callable[["Idioms", Node], Replacement | None]


@dataclass
class Idioms(NodesByValue):
    """A rewriter that replaces groups of primitives by single nodes.

    New values are added to ``types``. ``same`` maps a removed value to the equal value that
    replaces it. ``added`` has new nodes, which stand before the node that is being rewritten.
    ``lacking`` names operations that are left as primitives.
    """

    types: dict[int, Type]
    made: dict[int, Node] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    same: dict[int, int] = field(default_factory=dict)
    added: list[Node] = field(default_factory=list)
    lacking: Collection[str] = ()

    def block(
        self, nodes: Iterable[Node], wanted: Iterable[int]
    ) -> tuple[tuple[Node, ...], tuple[int, ...]]:
        """Rewrite nodes. Return the new nodes that are needed to compute the values ``wanted``, and
        the numbers that these values have after rewriting."""
        rewritten: list[Node] = []
        for node in nodes:
            new = self._rewritten(node)
            rewritten += [*self.added, *([] if new is None else [new])]
            self.added.clear()
        results = tuple(self._now(value) for value in wanted)
        return needed_nodes(rewritten, results), results

    def add(self, op: str, inputs: tuple[int, ...], type_: Type, **attributes: Any) -> int:
        """Add a node before the node that is being rewritten; return the number of its value."""
        value = 1 + max(self.types)
        self.types[value] = type_
        self.made[value] = Node(op, inputs, (value,), attributes)
        self.added.append(self.made[value])
        return value

    def _now(self, value: int) -> int:
        return self.same.get(value, value)

    def _rewritten(self, node: Node) -> Node | None:
        inputs = tuple(self._now(i) for i in node.inputs)
        node = replace(node, inputs=inputs)
        if node.op == "scan":
            nodes, outputs = self.block(node.block.nodes, node.block.outputs)
            node = replace(node, body=Block(node.block.inputs, nodes, outputs))
        elif node.op in RULES:
            for rule in RULES[node.op]:
                match = rule(self, node)
                if match is not None:
                    return self._replaced(node, *match)
        for output in node.outputs:
            self.made[output] = node
        return node

    def _replaced(
        self, node: Node, op: str, operands: tuple[int, ...], attributes: dict[str, Any]
    ) -> Node | None:
        if op != "same":
            made = replace(node, op=op, inputs=operands, attributes=attributes)
            self.made[node.output] = made
            # A part of an idiom may be a part of a larger idiom.
            larger = _expression(self, made) if op in RULES else None
            return made if larger is None else self._replaced(made, *larger)
        (operand,) = operands
        self.same[node.output] = operand
        if node.output in self.names:
            self.names.setdefault(operand, self.names[node.output])
        return None


def _named(find: Callable[[Idioms, tuple[int, ...]], Match | None]) -> Rule:
    def rule(g: Idioms, node: Node) -> Replacement | None:
        match = find(g, node.inputs)
        return None if match is None else (match[0], (match[1],), match[2])

    return rule


def _mean(g: Idioms, node: Node) -> Replacement | None:
    total, extent = g.node(node.inputs[0], "sum"), g.node(node.inputs[1], "extent")
    if total is None or extent is None:
        return None
    shape, axes = g.types[total.inputs[0]].shape, total.attributes["axis"]
    if not axes or tuple(shape[a] for a in axes) != tuple(extent.attributes["dims"]):
        return None
    return "mean", total.inputs, dict(total.attributes)


def _once(g: Idioms, node: Node) -> Replacement | None:
    """Replace ``1 * x`` by x if the product has the shape of x."""
    for a, b in (node.inputs, node.inputs[::-1]):
        if _filling(g, a) == 1.0 and g.types[b] == g.types[node.output]:
            return "same", (b,), {}
    return None


def _filling(g: Idioms, value: int) -> float | None:
    """Return the number that all entries of a value have, e.g. 1 for the mask of dropout in
    inference; None if it is not known."""
    node = g.node(value, "broadcast_to", "divide")
    numbers = [_filling(g, inner) for inner in node.inputs] if node is not None else []
    match numbers:
        case [float(number)]:
            return number
        case [float(number), float(divisor)] if divisor:
            return number / divisor
    return g.number(value)


def _select(g: Idioms, node: Node) -> Replacement | None:
    part = g.node(node.inputs[0], "slice")
    if part is None or part.attributes["axis"] != node.attributes["axis"]:
        return None
    axis, whole = part.attributes["axis"], g.types[part.inputs[0]].shape
    last = Dim.of(part.attributes["stop"]) == whole[axis]
    index = Dim(-1) if last else Dim.of(part.attributes["start"])
    return "select", part.inputs, {"axis": axis, "index": index}


def _restored(g: Idioms, node: Node) -> Replacement | None:
    """Replace ``squeeze(expand_dims(x))`` by x, if the same axis is added and removed."""
    wide = g.node(node.inputs[0], "expand_dims")
    if wide is None or wide.attributes["axis"] != node.attributes["axis"]:
        return None
    return "same", wide.inputs, {}


def _reshaped(g: Idioms, node: Node) -> Replacement | None:
    """Replace two reshapes by the last one."""
    inner = g.node(node.inputs[0], "reshape")
    return None if inner is None else ("reshape", inner.inputs, dict(node.attributes))


def _permuted(g: Idioms, node: Node) -> Replacement | None:
    """Replace two permutations of axes by one."""
    inner = g.node(node.inputs[0], "permute_dims")
    if inner is None:
        return None
    first, last = inner.attributes["axes"], node.attributes["axes"]
    axes = tuple(first[axis] for axis in last)
    return "permute_dims", inner.inputs, {"axes": axes}


# Expressions that stand for one operation.

# An operation with its operands, a number, or the name of an operand: c and d are conditions, and
# x and y are values of any kind.
Form = tuple[Any, ...] | float | str
BELOW_ZERO = ("less_equal", "x", 0.0)
SHIFT = ("stop_gradient", ("relu", "x"))
COMMUTATIVE = ("add", "multiply", "equal")
EXPRESSIONS: Mapping[str, Form] = {
    "gelu": (
        "multiply",
        ("multiply", 0.5, "x"),
        ("add", 1.0, ("erf", ("multiply", 0.7071067811865476, "x"))),
    ),
    "gelu_tanh": (
        "multiply",
        ("multiply", 0.5, "x"),
        (
            "add",
            1.0,
            (
                "tanh",
                (
                    "multiply",
                    0.7978845608028654,
                    ("add", "x", ("multiply", 0.044715, ("power", "x", 3.0))),
                ),
            ),
        ),
    ),
    "silu": ("multiply", "x", ("sigmoid", "x")),
    "softplus": (
        "add",
        SHIFT,
        ("log", ("add", ("exp", ("subtract", "x", SHIFT)), ("exp", ("negative", SHIFT)))),
    ),
    "elu": (
        "where",
        BELOW_ZERO,
        ("subtract", ("exp", ("where", BELOW_ZERO, "x", 0.0)), 1.0),
        "x",
    ),
    "sign": (
        "where",
        ("less", "x", 0.0),
        -1.0,
        ("where", ("less", 0.0, "x"), 1.0, ("multiply", 0.0, "x")),
    ),
    "logical_and": ("equal", ("multiply", ("astype", "c"), ("astype", "d")), 1.0),
    "logical_or": ("logical_not", ("equal", ("add", ("astype", "c"), ("astype", "d")), 0.0)),
    "same": ("logical_not", ("logical_not", "c")),
    "not_equal": ("logical_not", ("equal", "x", "y")),
    "logical_not": ("equal", ("astype", "c"), 0.0),
    "equal": ("equal", ("astype", "c"), ("astype", "d")),
}


def _expression(g: Idioms, node: Node) -> Replacement | None:
    for op, form in EXPRESSIONS.items():
        operands = _operands(g, node.output, form, {}, node)
        if operands is not None and op not in g.lacking:
            return op, tuple(operands[name] for name in sorted(operands)), {}
    return None


def _operands(
    g: Idioms, value: int, form: Form, operands: Mapping[str, int], last: Node | None = None
) -> Mapping[str, int] | None:
    """Return the values for the names in ``form`` with which it equals ``value``, in addition to
    the known ``operands``; None if there are none. ``last`` is the node that computes the value, if
    it is not yet in ``g``."""
    if isinstance(form, str):
        fits = form not in "cd" or g.types[value].kind == "bool"
        return {**operands, form: value} if fits and operands.get(form, value) == value else None
    if isinstance(form, float):
        return operands if g.number(value) == form else None
    op, *parts = form
    node = last or g.node(value, op)
    if node is None or node.op != op:
        return None
    orders = [node.inputs, node.inputs[::-1]] if op in COMMUTATIVE else [node.inputs]
    for order in orders:
        found: Mapping[str, int] | None = operands
        for operand, part in zip(order, parts, strict=True):
            found = None if found is None else _operands(g, operand, part, found)
        if found is not None:
            return found
    return None


# Comparisons of indices. A spec compares them as floats, with the midpoint between two integers.

INTEGER = Type((), "index", Dim(1 << 31))
HALF: Mapping[str, int | None] = {"less": 0, "less_equal": 1, "equal": None}


def _of_integers(g: Idioms, node: Node) -> Replacement | None:
    """Compare indices, and integers of the spec, as integers."""
    sides = [*node.inputs]
    half = HALF[node.op]
    if half is not None:
        total = g.node(sides[half], "add")
        if total is None or g.number(total.inputs[1]) != 0.5:
            return None
        sides[half] = total.inputs[0]
    if not all(_is_integer(g, side) for side in sides):
        return None
    if not any(g.node(side, "astype", "add", "subtract") for side in sides):
        return None
    return node.op, tuple(_as_integer(g, side) for side in sides), {}


def _is_integer(g: Idioms, value: int) -> bool:
    node = g.node(value, "constant", "extent", "astype", "add", "subtract")
    if node is None:
        return False
    if node.op == "constant":
        return float(node.attributes["value"]).is_integer()
    if node.op == "astype":
        return g.types[node.inputs[0]].kind == "index"
    return all(_is_integer(g, part) for part in node.inputs)


def _as_integer(g: Idioms, value: int) -> int:
    node = g.made[value]
    if node.op == "astype":
        return node.inputs[0]
    if node.op == "extent":
        return value
    if node.op == "constant":
        return g.add("constant", (), INTEGER, **node.attributes)
    inputs = tuple(_as_integer(g, part) for part in node.inputs)
    return g.add(node.op, inputs, Type(g.types[value].shape, "index", INTEGER.bound))


COMPARISONS = dict.fromkeys(("less", "less_equal"), (_of_integers,))
RULES: Mapping[str, tuple[Rule, ...]] = {
    **COMPARISONS,
    "equal": (_of_integers, _expression),
    "logical_not": (_expression,),
    "where": (_named(patterns.relu), _named(patterns.clip), _expression),
    "add": (_named(patterns.sigmoid), _expression),
    "divide": (_named(patterns.softmax), _named(patterns.softmax_along), _mean),
    "subtract": (_named(patterns.log_softmax), _named(patterns.log_softmax_along)),
    "multiply": (_once, _expression),
    "squeeze": (_select, _restored),
    "reshape": (_reshaped,),
    "permute_dims": (_permuted,),
}
