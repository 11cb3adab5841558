"""Rewriter of a program: emits nodes one by one, each once, as far out of loops as they can be.

Emitting applies the rules of the pass and reuses a common subexpression if there is one. It puts
the node into the outermost loop that holds all its inputs, so a node that does not change from step
to step leaves its loop. A node that depends only on slices of sequences may be lifted: done for the
whole sequence at once, before the loop.

Emitting ends. The rules also apply to the nodes that a rule emits; these are nearer to an end by a
measure that tests/support/measure.py has. If two rules still undo each other, a node that is
emitted while it is being rewritten stays as it is. So does a node deeper than :data:`DEEPEST` or
after :data:`MOST`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from harness.program.builder import Builder
from harness.program.dims import Attributes, Dim
from harness.program.infer import infer
from harness.program.ir import Block, Node, Type, free_values

COMMUTATIVE = frozenset({"add", "multiply", "equal"})
# Limits on the nesting of rules, and on applications in a pass for each node. Plans of Lesson 6
# need 3 and less than 1.
DEEPEST, MOST = 60, 100

# (rewriter, inputs, attributes) -> an equal value, or None if the rule does not apply.
Rule = Callable[["Rewriter", tuple[int, ...], Attributes], "int | None"]
# (rewriter, op, inputs, attributes) -> whether to do it for the whole sequence, before the loop.
Policy = Callable[["Rewriter", str, tuple[int, ...], Attributes], bool]


@dataclass
class LoopScope:
    """An open list of nodes; ``slices`` maps a slice of a step to its whole sequence."""

    nodes: list[Node] = field(default_factory=list)
    found: dict[Any, int] = field(default_factory=dict)
    slices: dict[int, int] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)


@dataclass
class Rewriter:
    """The nodes made so far, in a stack of open scopes: the outermost, and the loops inside it."""

    builder: Builder
    sizes: Mapping[str, int]
    rules: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    lifts: Policy | None = None
    scopes: list[LoopScope] = field(default_factory=lambda: [LoopScope()])
    home: dict[int, int] = field(default_factory=dict)
    made: dict[int, Node] = field(default_factory=dict)
    uses: Counter[int] = field(default_factory=Counter)
    counts: dict[int, int] = field(default_factory=dict)
    place: str = ""
    # Applications of rules that are left, and the keys being rewritten.
    most: int = MOST
    open: set[Any] = field(default_factory=set)

    # --- Facts about a value

    def type(self, value: int) -> Type:
        """Return the type of a value."""
        return self.builder.types[value]

    def shape(self, value: int) -> tuple[Dim, ...]:
        """Return the symbolic shape of a value."""
        return self.builder.types[value].shape

    def rank(self, value: int) -> int:
        """Return the number of axes."""
        return len(self.builder.types[value].shape)

    def count(self, value: int) -> int:
        """Return the number of entries."""
        if value not in self.counts:
            self.counts[value] = prod(dim.resolve(self.sizes) for dim in self.shape(value))
        return self.counts[value]

    def node(self, value: int, *ops: str) -> Node | None:
        """Return the node that makes a value, if it is one of ``ops``."""
        node = self.made.get(value)
        return node if node is not None and node.op in ops else None

    def depth(self, value: int) -> int:
        """Return the number of loops around a value."""
        return self.home.get(value, 0)

    def steps(self, depth: int) -> int:
        """Return the number of steps of the loop at a depth; 1 outside of all."""
        whole = next(iter(self.scopes[depth].sequences), None)
        return 1 if whole is None else self.shape(whole)[0].resolve(self.sizes)

    def number(self, value: int) -> float | None:
        """Return the number that all entries of a value are, if known."""
        node = self.made.get(value)
        while node is not None and node.op in ("broadcast_to", "expand_dims"):
            node = self.made.get(node.inputs[0])
        if node is None or node.op != "constant":
            return None
        return float(node.attributes["value"])

    # --- Emitting

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Return a value made by ``op``, or an equal one."""
        return self.apply(op, inputs, attributes)

    def constant(self, value: float) -> int:
        """Emit a literal number."""
        return self.emit("constant", value=float(value))

    def full(self, value: float, shape: Sequence[Dim]) -> int:
        """Emit one number in all places of a shape."""
        number = self.constant(value)
        return self.emit("broadcast_to", number, shape=tuple(shape)) if shape else number

    def apply(
        self,
        op: str,
        inputs: tuple[int, ...],
        attributes: Attributes,
        old: Node | None = None,
    ) -> int:
        """Emit like :meth:`emit`; a new node keeps the number of ``old``, if it fits."""
        key = _key(op, inputs, attributes)
        same = self._rewritten(key, op, inputs, attributes)
        if same is not None:
            return same
        depth = max(map(self.depth, inputs), default=0) if len(self.scopes) > 1 else 0
        scope = self.scopes[depth]
        if depth and self.lifts is not None:
            local = [i for i in inputs if self.depth(i) == depth]
            liftable = all(i in scope.slices for i in local)
            if liftable and self.lifts(self, op, inputs, attributes):
                return self._lift(op, inputs, attributes, depth)
        number = scope.found.get(key)
        if number is not None:
            return number
        if old is not None and inputs == old.inputs and old.output not in self.made:
            node = old  # most nodes of most passes: nothing is inferred again
        else:
            node = self._made(op, inputs, attributes, old)
        number = node.output
        scope.nodes.append(node)
        scope.found[key] = number
        self.made[number] = node
        self.home[number] = depth
        return number

    def _made(
        self,
        op: str,
        inputs: tuple[int, ...],
        attributes: Attributes,
        old: Node | None,
    ) -> Node:
        types = tuple(self.type(i) for i in inputs)
        joins = op == "concat"
        type_ = joined_type(types, attributes["axis"]) if joins else infer(op, types, attributes)
        fits = old is not None and old.output not in self.made
        if old is None or not fits or self.type(old.output) != type_:
            return Node(op, inputs, (self.builder.value(type_),), attributes, place=self.place)
        return Node(op, inputs, old.outputs, attributes, place=self.place)

    def _rewritten(
        self, key: Any, op: str, inputs: tuple[int, ...], attributes: Attributes
    ) -> int | None:
        rules = self.rules.get(op)
        if not rules or key in self.open or len(self.open) >= DEEPEST or self.most <= 0:
            return None
        self.open.add(key)
        same = None
        for rule in rules:
            same = rule(self, inputs, attributes)
            if same is not None:
                self.most -= 1
                break
        self.open.remove(key)
        return same

    def _lift(self, op: str, inputs: tuple[int, ...], attributes: Attributes, depth: int) -> int:
        whole = tuple(self.scopes[depth].slices.get(i, i) for i in inputs)
        step = tuple(i in self.scopes[depth].slices for i in inputs)
        return self.slice_of(self.batched(op, whole, step, attributes), depth)

    def slice_of(self, whole: int, depth: int, number: int | None = None) -> int:
        """Return the slice of a sequence at each step of the loop at ``depth``."""
        scope = self.scopes[depth]
        if whole not in scope.sequences:
            value = self.builder.value(self.step_type(whole)) if number is None else number
            scope.sequences[whole] = value
            scope.slices[value] = whole
            self.home[value] = depth
        return scope.sequences[whole]

    def batched(
        self, op: str, whole: Sequence[int], step: Sequence[bool], attributes: Attributes
    ) -> int:
        """Do ``op`` for all steps at once; operands with ``step`` have an additional first axis."""
        attributes = dict(attributes)
        if op in ("sum", "max"):
            attributes["axis"] = tuple(axis + 1 for axis in attributes["axis"])
        elif op in ("slice", "flip", "concat", "expand_dims", "squeeze"):
            attributes["axis"] = attributes["axis"] + 1
        elif op == "permute_dims":
            attributes["axes"] = (0, *(axis + 1 for axis in attributes["axes"]))
        elif op in ("broadcast_to", "reshape"):
            attributes["shape"] = (self.shape(whole[0])[0], *attributes["shape"])
        ranks = [self.rank(v) - (1 if s else 0) for v, s in zip(whole, step, strict=True)]
        operands = []
        for value, stepped, rank in zip(whole, step, ranks, strict=True):
            # Broadcasting aligns last axes, so that a first axis of steps needs equal ranks.
            missing = max(ranks) - rank if stepped and op not in ("take", "matmul") else 0
            if op == "broadcast_to":
                missing = len(attributes["shape"]) - 1 - rank
            for _ in range(missing):
                value = self.emit("expand_dims", value, axis=1)
            operands.append(value)
        return self.apply(op, tuple(operands), attributes)

    # --- Loops

    def step_type(self, whole: int) -> Type:
        """Return the type of one step's slice of a sequence."""
        type_ = self.type(whole)
        return Type(type_.shape[1:], type_.kind, type_.bound)

    def stacked_type(self, value: int, like: int) -> Type:
        """Return the type of a body's value stacked over the steps of the sequence ``like``."""
        type_ = self.type(value)
        return Type((self.shape(like)[0], *type_.shape), type_.kind, type_.bound)

    def begin(self) -> LoopScope:
        """Open a loop's body."""
        self.scopes.append(LoopScope())
        return self.scopes[-1]

    def enter(self, number: int) -> int:
        """Make a value an input of the innermost open body."""
        self.home[number] = len(self.scopes) - 1
        return number

    def end(
        self,
        node: Node,
        carries: Sequence[int],
        starts: Sequence[int],
        outputs: Sequence[int],
        results: Sequence[int],
    ) -> None:
        """Close a body and append its loop, whose outputs are ``results``."""
        scope = self.scopes.pop()
        inputs = (*carries, *scope.slices)
        block = Block(inputs, tuple(scope.nodes), tuple(outputs))
        attributes = {**node.attributes, "carries": len(carries)}
        loop = Node(
            "scan", (*starts, *scope.slices.values()), tuple(results), attributes, block, node.place
        )
        outer = (*loop.inputs, *free_values(block))
        depth = max((self.depth(v) for v in outer), default=0)
        self.scopes[depth].nodes.append(loop)
        for result in results:
            self.made[result] = loop
            self.home[result] = depth


def joined_type(types: Sequence[Type], axis: int) -> Type:
    """Return the type of values side by side; plans join indices too."""
    shape = list(types[0].shape)
    for type_ in types[1:]:
        shape[axis] = shape[axis] + type_.shape[axis]
    return replace(types[0], shape=tuple(shape))


def _key(op: str, inputs: tuple[int, ...], attributes: Attributes) -> Any:
    if op in COMMUTATIVE:
        inputs = tuple(sorted(inputs))
    if not attributes:
        return op, inputs, ()
    # repr tells 0.0 from -0.0, which are equal.
    return op, inputs, tuple(sorted((name, repr(value)) for name, value in attributes.items()))
