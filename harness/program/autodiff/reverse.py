"""Backward pass over the nodes of a program, with derivative rules that the caller passes.

A forward loop stacks a value over its steps only if the backward loop reads this value. If a loop
uses a weight at every step, the gradient of the weight is computed by one matrix product over all
steps, after the backward loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.program.builder import Builder
from harness.program.dims import Dim, Shape
from harness.program.ir import Block, Node, Type, reads

# The values through which a derivative flows, and loop-invariant nodes.

# Operations whose output has no derivative with respect to any input.
CONSTANT = frozenset(
    {
        *("less", "less_equal", "equal", "astype", "one_hot", "stop_gradient", "floor"),
        *("arange", "argsort"),
        *("constant", "extent"),
    }
)


def hoist(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Move loop-invariant nodes out of each loop, to before the loop. The operands of such a node
    are the same in every step.

    The optimising passes also move such nodes, but they change more. This function is separate
    because the oracle's derivative must not depend on the passes.
    """
    result: list[Node] = []
    for node in nodes:
        if node.op != "scan":
            result.append(node)
            continue
        inside = set(node.block.inputs)
        dependent: list[Node] = []
        for inner in node.block.nodes:
            if inside.intersection(reads(inner)):
                dependent.append(inner)
                inside.update(inner.outputs)
            else:
                result.append(inner)
        result.append(replace(node, body=replace(node.block, nodes=tuple(dependent))))
    return tuple(result)


def active_values(nodes: Iterable[Node], against: set[int]) -> set[int]:
    """Return the values (as numbers) that need a gradient: the values in ``against``, and all
    values computed from them, except by operations without a derivative."""
    active = set(against)
    for node in nodes:
        if node.op == "scan":
            _activate_loop(node, node.block, active)
        elif node.op not in CONSTANT and active.intersection(node.inputs):
            active.update(node.outputs)
    return active


def _activate_loop(node: Node, body: Block, active: set[int]) -> None:
    """Extend the set ``active`` (values that need a gradient) by values of a loop: the values in
    its ``body`` and the outputs of ``node`` that depend on an active value."""
    carries = node.carries
    active.update(b for b, i in zip(body.inputs, node.inputs, strict=True) if i in active)
    while True:
        before = len(active)
        active |= active_values(body.nodes, active)
        active.update(
            carry
            for carry, after in zip(body.inputs[:carries], body.outputs[:carries], strict=True)
            if after in active
        )
        if len(active) == before:
            break
    active.update(o for o, b in zip(node.outputs, body.outputs, strict=True) if b in active)


# Cotangents of slices of a value, which are collected until the whole cotangent is needed.


@dataclass(frozen=True)
class SliceCotangent:
    """The cotangent of a part of a value: of its entries ``start:stop`` along ``axis``.
    ``cotangent`` is a value number."""

    axis: int
    start: Dim
    stop: Dim
    cotangent: int


def rows(pieces: Sequence[SliceCotangent]) -> list[list[SliceCotangent]]:
    """Group the slices ``pieces`` along an axis so that the slices within a group do not overlap
    and can be concatenated. Return the groups. Two slices with symbolic sizes are in one group only
    if they cannot overlap for any sizes."""
    groups: list[list[SliceCotangent]] = []
    for piece in sorted(pieces, key=lambda p: (p.start.constant, sum(c for _, c in p.start.terms))):
        group = next((r for r in groups if _not_negative(piece.start - r[-1].stop)), None)
        if group is None:
            groups.append([piece])
        else:
            group.append(piece)
    return groups


def _not_negative(dim: Dim) -> bool:
    return dim.constant >= 0 and all(c >= 0 for _, c in dim.terms)


# The derivative rule of an operation. A call with (backward pass, node, cotangent of the output)
# adds to the cotangents of the node's inputs.
Rule = Callable[["Reverse", Node, int], None]

# Views of a value, which the backward loop recomputes instead of reading a stack of them.
VIEWS = frozenset({"slice", "permute_dims", "expand_dims", "squeeze"})
# Operations that only move or repeat entries. Windows of an image are several times larger than the
# image, so recomputing them saves most of the memory of a convolutional network.
MOVES = VIEWS | {"windows", "reshape", "broadcast_to"}


@dataclass
class Reverse:
    """The backward pass over a list of nodes; it collects the cotangent (the gradient) of each
    value.

    - ``forward`` has the nodes of the forward pass, and ``live`` the numbers of the values that
      need a gradient.
    - ``rules`` maps an operation to its derivative rule, and ``fused`` names the fused operations
      that the backward pass may use.
    - ``recomputed`` names the operations whose results the backward pass computes again.
    - ``cotangents`` maps a value to the sum of its cotangents so far. ``pieces`` maps a value to
      the cotangents of slices of this value.
    """

    builder: Builder
    forward: list[Node]
    live: set[int]
    rules: Mapping[str, Rule]
    fused: frozenset[str] = frozenset()
    recomputed: frozenset[str] = frozenset()
    cotangents: dict[int, int] = field(default_factory=dict)
    pieces: dict[int, list[SliceCotangent]] = field(default_factory=dict)
    copies: dict[int, int] = field(default_factory=dict)  # forward value -> the recomputed value

    def __post_init__(self) -> None:
        self.makers = {output: node for node in self.forward for output in node.outputs}

    def offers(self, op: str) -> bool:
        """Return whether the backward pass may use the fused operation ``op``, e.g.
        ``relu_gradient``."""
        return op in self.fused

    def active(self, value: int) -> bool:
        """Return whether the backward pass must compute the gradient of ``value``."""
        return value in self.live

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Append an operation to the backward pass; return the value number of its result."""
        return self.builder.emit(op, *inputs, **attributes)

    def constant(self, value: float) -> int:
        """Append a literal number; return its value number."""
        return self.builder.constant(value)

    def read(self, value: int) -> int:
        """Return the number under which the backward pass can read ``value`` of the forward pass.
        Results of ``recomputed`` operations are computed again."""
        moves: list[Node] = []
        while value not in self.copies and (move := self._recomputable(value)) is not None:
            moves.append(move)
            value = move.inputs[0]
        value = self.copies[value] if value in self.copies else self._kept(value)
        for move in reversed(moves):
            value = self.copies[move.output] = self.emit(move.op, value, **move.attributes)
        return value

    def _recomputable(self, value: int) -> Node | None:
        """Return the node that computes ``value``, if its operation is ``recomputed``."""
        node = self.makers.get(value)
        return node if node is not None and node.op in self.recomputed else None

    def _kept(self, value: int) -> int:
        """Return the number of a value that the forward pass keeps. Inside a loop, the result is
        the number of a slice: the forward loop stacks ``value`` over all steps, and the backward
        loop reads one step of this stack."""
        return value

    def is_computed_by(self, value: int, op: str) -> bool:
        """Return whether a forward node with the operation ``op`` computes ``value``."""
        return value in self.makers and self.makers[value].op == op

    def add(self, value: int, cotangent: int) -> None:
        """Add ``cotangent`` to the cotangent of ``value``. If the forward pass broadcast the value,
        ``cotangent`` is first summed over the broadcast axes."""
        if not self.active(value):
            return
        cotangent = self.builder.reduce_to(cotangent, self.builder.types[value].shape)
        if value in self.cotangents:
            cotangent = self.emit("add", self.cotangents[value], cotangent)
        self.cotangents[value] = cotangent

    def add_slice(self, value: int, axis: int, start: Dim, stop: Dim, cotangent: int) -> None:
        """Add ``cotangent`` to a part of the cotangent of ``value``: to its entries ``start:stop``
        along ``axis``."""
        if self.active(value):
            self.pieces.setdefault(value, []).append(SliceCotangent(axis, start, stop, cotangent))

    def combine_parts(self, value: int) -> int | None:
        """Add up the collected cotangents of a value and of slices of this value. Return the number
        of the sum, or None if there are no cotangents."""
        pieces = self.pieces.pop(value, [])
        shape = self.builder.types[value].shape
        for axis in dict.fromkeys(piece.axis for piece in pieces):
            for group in rows([piece for piece in pieces if piece.axis == axis]):
                self.add(value, self._side_by_side(group, axis, shape))
        return self.cotangents.get(value)

    def _side_by_side(self, group: Sequence[SliceCotangent], axis: int, shape: Shape) -> int:
        """Concatenate the cotangents in ``group``, which belong to slices that do not overlap, with
        zeros in the gaps between them. Return the value number of the result, which is the
        cotangent of the whole value with ``shape``."""
        pieces: list[int] = []
        end = Dim()

        def fill(stop: Dim) -> None:
            if stop != end:
                pieces.append(self.builder.zeros((*shape[:axis], stop - end, *shape[axis + 1 :])))

        for piece in group:
            fill(piece.start)
            pieces.append(piece.cotangent)
            end = piece.stop
        fill(shape[axis])
        return self.emit("concat", *pieces, axis=axis) if len(pieces) > 1 else pieces[0]

    def add_product(self, weight: int, left: int, cotangent: int) -> None:
        """Add ``left.T @ cotangent`` to the cotangent of ``weight``. If the operands have more than
        two axes, the product is summed over all axes before the last two."""
        rank = len(self.builder.types[left].shape)
        axes = tuple(range(rank - 1))
        self.add(weight, self.emit("tensordot", self.read(left), cotangent, axes=(axes, axes)))

    def cotangent(self, value: int, shape: Shape) -> int:
        """Return the whole cotangent of a value, or zeros with ``shape``, if no cotangent was
        collected."""
        combined = self.combine_parts(value)
        return self.builder.zeros(shape) if combined is None else combined

    def run(self, nodes: Sequence[Node]) -> None:
        """Apply the derivative rules to the nodes, from the last node to the first."""
        for node in reversed(tuple(nodes)):
            self.builder.place = node.place
            if all(self.combine_parts(o) is None for o in node.outputs):
                continue
            if node.op == "scan":
                self._scan(node)
            elif node.op not in CONSTANT:
                self.rules[node.op](self, node, self.cotangents[node.output])

    def _scan(self, node: Node) -> None:
        step = _ScanReverse(self, node)
        gradients, augmented = step.build(self.cotangents)
        self.forward[self.forward.index(node)] = augmented
        for value, cotangent in gradients:
            self.add(value, cotangent)


class _ScanReverse(Reverse):
    """The backward pass over the body of a loop. It becomes the body of a new loop, the backward
    loop."""

    def __init__(self, outer: Reverse, node: Node) -> None:
        forward = [*node.block.nodes]
        super().__init__(outer.builder, forward, outer.live, outer.rules, outer.fused, VIEWS)
        self.node, self.body = node, node.block
        self.count: int = node.carries
        self.local = set(self.body.inputs).union(*(n.outputs for n in self.body.nodes))
        self.slices: dict[int, int] = {}  # forward value -> its slice in the backward body
        self.products: list[tuple[int, int, int]] = []  # weight, left forward value, cotangent
        self.sums: list[tuple[int, int]] = []  # outer value, cotangent of one step

    def _kept(self, value: int) -> int:
        return self._slice(value) if value in self.local else value

    def _slice(self, value: int) -> int:
        if value not in self.slices:
            self.slices[value] = self.builder.value(self.builder.types[value])
        return self.slices[value]

    def add(self, value: int, cotangent: int) -> None:
        if value in self.local:
            super().add(value, cotangent)
        elif self.active(value):
            self.sums.append((value, cotangent))

    def add_slice(self, value: int, axis: int, start: Dim, stop: Dim, cotangent: int) -> None:
        if value in self.local:
            super().add_slice(value, axis, start, stop, cotangent)
        elif self.active(value):
            shape = self.builder.types[value].shape
            group = [SliceCotangent(axis, start, stop, cotangent)]
            self.add(value, self._side_by_side(group, axis, shape))

    def add_product(self, weight: int, left: int, cotangent: int) -> None:
        if weight in self.local:
            super().add_product(weight, left, cotangent)
        elif left in self.local:
            self._slice(left)  # stack views too: the product reads all steps of `left`
            self.products.append((weight, left, cotangent))
        else:
            super().add_product(weight, left, cotangent)

    def build(self, outer: Mapping[int, int]) -> tuple[list[tuple[int, int]], Node]:
        """Build the backward loop. Return two things: pairs (value, cotangent) for the values that
        the forward loop reads, and the new forward loop. The new forward loop also stacks the
        values that the backward loop reads. ``outer`` maps each output of the forward loop to its
        cotangent."""
        b, count = self.builder, self.count
        types = b.types
        carried = [i for i, v in enumerate(self.body.inputs[:count]) if self.active(v)]
        start = [
            outer.get(self.node.outputs[i]) or b.zeros(types[self.node.outputs[i]].shape)
            for i in carried
        ]
        stacks = [
            (body, outer[out])
            for body, out in zip(self.body.outputs[count:], self.node.outputs[count:], strict=True)
            if out in outer
        ]
        b.begin()
        entering = [b.value(types[self.body.inputs[i]]) for i in carried]
        arriving = [b.value(types[body]) for body, _ in stacks]
        for i, cotangent in zip(carried, entering, strict=True):
            self.add(self.body.outputs[i], cotangent)
        for (body, _), cotangent in zip(stacks, arriving, strict=True):
            self.add(body, cotangent)
        self.run(self.body.nodes)
        leaving = [
            self.cotangent(v, types[v].shape) for v in (self.body.inputs[i] for i in carried)
        ]
        read_sequences = [v for v in self.body.inputs[count:] if self.combine_parts(v) is not None]
        sequence_cotangents = [self.cotangents[v] for v in read_sequences]
        extra = list(dict.fromkeys([c for _, _, c in self.products] + [c for _, c in self.sums]))
        residuals = list(self.slices)
        inputs = [*entering, *arriving, *(self.slices[v] for v in residuals)]
        block = b.end(inputs, [*leaving, *sequence_cotangents, *extra])
        augmented, stack_of = self._augment(residuals)
        sequences = [*(c for _, c in stacks), *(stack_of[v] for v in residuals)]
        last, stacked = b.scan(block, start, sequences, reverse=not self.node.reverse)
        results = [(self.node.inputs[i], c) for i, c in zip(carried, last, strict=True)]
        position = {v: self.node.inputs[self.body.inputs.index(v)] for v in read_sequences}
        results += [(position[v], c) for v, c in zip(read_sequences, stacked, strict=False)]
        by_step = dict(zip(extra, stacked[len(read_sequences) :], strict=True))
        results += self._captured_gradients(stack_of, by_step)
        return results, augmented

    def _captured_gradients(
        self, stack_of: Mapping[int, int], by_step: Mapping[int, int]
    ) -> list[tuple[int, int]]:
        """Compute the gradients of values that the loop reads from outside, e.g. weights; the
        computation comes after the backward loop. Return pairs (value, gradient).

        ``stack_of`` maps a value of the forward loop to an array with the value at every step.
        ``by_step`` maps a cotangent of the backward loop to an array with the cotangent at every
        step.
        """
        results = []
        for weight, left, cotangent in self.products:
            rank = len(self.builder.types[left].shape)
            axes = tuple(range(rank))
            stacks = (stack_of[left], by_step[cotangent])
            results.append((weight, self.emit("tensordot", *stacks, axes=(axes, axes))))
        for value, cotangent in self.sums:
            results.append((value, self.emit("sum", by_step[cotangent], axis=(0,), keepdims=False)))
        return results

    def _augment(self, residuals: Sequence[int]) -> tuple[Node, dict[int, int]]:
        """Extend the forward loop so that it also stacks the values ``residuals`` over its steps.
        Return the new loop, and a mapping from each of these values to its stack."""
        sequences = dict(
            zip(self.body.inputs[self.count :], self.node.inputs[self.count :], strict=True)
        )
        stack_of = {v: sequences[v] for v in residuals if v in sequences}
        length = self.builder.types[self.node.inputs[self.count]].shape[0]
        added = [v for v in residuals if v not in sequences]
        for value in added:
            inner = self.builder.types[value]
            stack_of[value] = self.builder.value(
                Type((length, *inner.shape), inner.kind, inner.bound)
            )
        body = replace(self.body, outputs=(*self.body.outputs, *added))
        outputs = (*self.node.outputs, *(stack_of[v] for v in added))
        return replace(self.node, body=body, outputs=outputs), stack_of
