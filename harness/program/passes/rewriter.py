"""Rewriter of a program: it emits nodes one by one and applies rewrite rules to each node.

Before the rewriter emits a node, it tries the rewrite rules, and looks for an equal node that it
can reuse. Loop-invariant nodes are emitted outside their loop. A node that depends only on slices
of sequences may be lifted: it is emitted before the loop, for the whole sequence at once.

Rewriting always ends. Rules apply also to nodes that a rule emits, but each rule decreases a
measure, which tests/support/measure.py defines. In case two rules undo each other, a node that is
emitted again during its own rewriting is not rewritten. Neither is a node to which rules nested
deeper than :data:`DEEPEST` would apply, nor a node after :data:`MOST` rules.
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
# The largest nesting depth of rules, and the largest number of rules applied in a pass, per node of
# the program. Plans of Lesson 6 need a depth of 3, and less than one rule per node.
DEEPEST, MOST = 60, 100

# A rewrite rule: a function of (rewriter, inputs, attributes) of a node. It returns an equal value,
# or None if it does not apply.
Rule = Callable[["Rewriter", tuple[int, ...], Attributes], "int | None"]
# A function of (rewriter, op, inputs, attributes) of a node in a loop. It returns whether to
# compute the node before the loop, for the whole sequence at once.
Policy = Callable[["Rewriter", str, tuple[int, ...], Attributes], bool]


@dataclass
class LoopScope:
    """The nodes of a loop's body while they are emitted. The nodes outside all loops also have a
    scope.

    ``by_key`` maps the operation and operands of a node to its value, to find an equal node.
    ``slices`` maps the slice of a sequence at a step to the whole sequence, and ``sequences`` maps
    the sequence to its slice.
    """

    nodes: list[Node] = field(default_factory=list)
    by_key: dict[Any, int] = field(default_factory=dict)
    slices: dict[int, int] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)


@dataclass
class Rewriter:
    """The new program while its nodes are emitted. ``scopes`` is a stack: nodes outside all loops
    come first, then the nodes of each nested open loop.

    - ``rules`` maps an operation to its rewrite rules, and ``lifts`` decides which operations move
      to before a loop.
    - ``made`` maps a value to its node, ``home`` to its loop depth, ``uses`` to how often it is
      read, and ``counts`` to its number of entries.
    """

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
    # How many more rules may be applied, and the keys of nodes that are being rewritten.
    most: int = MOST
    in_progress: set[Any] = field(default_factory=set)

    # --- Facts about a value

    def type(self, value: int) -> Type:
        """Return the type of a value."""
        return self.builder.types[value]

    def shape(self, value: int) -> tuple[Dim, ...]:
        """Return the symbolic shape of a value."""
        return self.builder.types[value].shape

    def rank(self, value: int) -> int:
        """Return the number of axes of a value."""
        return len(self.builder.types[value].shape)

    def count(self, value: int) -> int:
        """Return the number of entries of a value."""
        if value not in self.counts:
            self.counts[value] = prod(dim.resolve(self.sizes) for dim in self.shape(value))
        return self.counts[value]

    def node(self, value: int, *ops: str) -> Node | None:
        """Return the node that computes a value, if its operation is one of ``ops``; else None."""
        node = self.made.get(value)
        return node if node is not None and node.op in ops else None

    def depth(self, value: int) -> int:
        """Return how many loops surround a value; 0 outside all loops."""
        return self.home.get(value, 0)

    def steps(self, depth: int) -> int:
        """Return the number of steps of the open loop at the nesting depth ``depth``; 1 outside all
        loops."""
        sequence = next(iter(self.scopes[depth].sequences), None)
        return 1 if sequence is None else self.shape(sequence)[0].resolve(self.sizes)

    def number(self, value: int) -> float | None:
        """Return the number that all entries of a value are known to equal; return None if they are
        unknown or differ."""
        node = self.made.get(value)
        while node is not None and node.op in ("broadcast_to", "expand_dims"):
            node = self.made.get(node.inputs[0])
        if node is None or node.op != "constant":
            return None
        return float(node.attributes["value"])

    # --- Emitting

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Emit an operation and return the value number of its result. If a rewrite rule applies,
        the result is the rule's value. If an equal node exists, the result is this node's value."""
        return self.apply(op, inputs, attributes)

    def constant(self, value: float) -> int:
        """Emit a literal number and return its value number."""
        return self.emit("constant", value=float(value))

    def full(self, value: float, shape: Sequence[Dim]) -> int:
        """Emit an array of a shape in which every entry is ``value``."""
        number = self.constant(value)
        return self.emit("broadcast_to", number, shape=tuple(shape)) if shape else number

    def apply(
        self,
        op: str,
        inputs: tuple[int, ...],
        attributes: Attributes,
        old: Node | None = None,
    ) -> int:
        """Emit an operation like :meth:`emit`, and return the value number of the result. ``old``
        is the node that the operation replaces; if possible, the result keeps the value number of
        this node."""
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
        number = scope.by_key.get(key)
        if number is not None:
            return number
        if old is not None and inputs == old.inputs and old.output not in self.made:
            node = old  # the usual case: reuse the node, and do not infer its type again
        else:
            node = self._new_node(op, inputs, attributes, old)
        number = node.output
        scope.nodes.append(node)
        scope.by_key[key] = number
        self.made[number] = node
        self.home[number] = depth
        return number

    def _new_node(
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
        """Apply the first rewrite rule that fits a node; return the rule's value, or None if no
        rule fits. ``key`` identifies the node's operation and operands."""
        rules = self.rules.get(op)
        if (
            not rules
            or key in self.in_progress
            or len(self.in_progress) >= DEEPEST
            or self.most <= 0
        ):
            return None
        self.in_progress.add(key)
        same = None
        for rule in rules:
            same = rule(self, inputs, attributes)
            if same is not None:
                self.most -= 1
                break
        self.in_progress.remove(key)
        return same

    def _lift(self, op: str, inputs: tuple[int, ...], attributes: Attributes, depth: int) -> int:
        sequences = tuple(self.scopes[depth].slices.get(i, i) for i in inputs)
        step = tuple(i in self.scopes[depth].slices for i in inputs)
        return self.slice_of(self.batched(op, sequences, step, attributes), depth)

    def slice_of(self, sequence: int, depth: int, number: int | None = None) -> int:
        """Return the value that is the slice of a sequence at the current step of the loop at the
        nesting depth ``depth``. ``number`` is the value number that a new slice gets."""
        scope = self.scopes[depth]
        if sequence not in scope.sequences:
            value = self.builder.value(self.step_type(sequence)) if number is None else number
            scope.sequences[sequence] = value
            scope.slices[value] = sequence
            self.home[value] = depth
        return scope.sequences[sequence]

    def batched(
        self, op: str, stacks: Sequence[int], step: Sequence[bool], attributes: Attributes
    ) -> int:
        """Emit ``op`` once for all steps of a loop, with ``stacks`` as operands. ``step`` has one
        bool for each operand: True if the first axis of the operand is the axis of the steps."""
        attributes = dict(attributes)
        if op in ("sum", "max"):
            attributes["axis"] = tuple(axis + 1 for axis in attributes["axis"])
        elif op in ("slice", "flip", "concat", "expand_dims", "squeeze"):
            attributes["axis"] = attributes["axis"] + 1
        elif op == "permute_dims":
            attributes["axes"] = (0, *(axis + 1 for axis in attributes["axes"]))
        elif op in ("broadcast_to", "reshape"):
            attributes["shape"] = (self.shape(stacks[0])[0], *attributes["shape"])
        ranks = [self.rank(v) - (1 if s else 0) for v, s in zip(stacks, step, strict=True)]
        operands = []
        for value, stepped, rank in zip(stacks, step, ranks, strict=True):
            # Broadcasting aligns the last axes, so all operands need the same rank.
            missing = max(ranks) - rank if stepped and op not in ("take", "matmul") else 0
            if op == "broadcast_to":
                missing = len(attributes["shape"]) - 1 - rank
            for _ in range(missing):
                value = self.emit("expand_dims", value, axis=1)
            operands.append(value)
        return self.apply(op, tuple(operands), attributes)

    # --- Loops

    def step_type(self, sequence: int) -> Type:
        """Return the type of one step's slice of a sequence."""
        type_ = self.type(sequence)
        return Type(type_.shape[1:], type_.kind, type_.bound)

    def stacked_type(self, value: int, like: int) -> Type:
        """Return the type of an array with a value at every step of a loop. ``value`` belongs to
        the loop's body, and ``like`` is a sequence with as many steps as the loop."""
        type_ = self.type(value)
        return Type((self.shape(like)[0], *type_.shape), type_.kind, type_.bound)

    def begin(self) -> LoopScope:
        """Open the body of a new loop and return its scope."""
        self.scopes.append(LoopScope())
        return self.scopes[-1]

    def enter(self, number: int) -> int:
        """Make the value ``number`` an input of the innermost open loop body; return the number."""
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
        """Close the innermost body and emit its loop. In the body, ``carries`` are the carried
        values, and ``outputs`` the values to carry on and to stack. ``starts`` are the carried
        values before the first step, and ``results`` the value numbers of the loop's outputs."""
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
    """Return the type of the concatenation of values along an axis; the values may also be index
    arrays."""
    shape = list(types[0].shape)
    for type_ in types[1:]:
        shape[axis] = shape[axis] + type_.shape[axis]
    return replace(types[0], shape=tuple(shape))


def _key(op: str, inputs: tuple[int, ...], attributes: Attributes) -> Any:
    if op in COMMUTATIVE:
        inputs = tuple(sorted(inputs))
    if not attributes:
        return op, inputs, ()
    # repr distinguishes 0.0 from -0.0, although they compare equal.
    return op, inputs, tuple(sorted((name, repr(value)) for name, value in attributes.items()))
