"""Operands that are slices of one value, and the like nodes on them that can be one node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.program.builder import Builder
from harness.program.dims import ONE, Dim
from harness.program.ir import Node
from harness.program.passes.algebra import ELEMENTWISE

FUSED = ("sigmoid", "relu", "clip", "sigmoid_gradient", "tanh_gradient", "relu_gradient")
ALONG_AXES = frozenset({*ELEMENTWISE, *FUSED, "clip_gradient", "stop_gradient", "astype"})


@dataclass(frozen=True)
class Slice:
    """A value that is ``start:stop`` of a source along one axis; ``start`` in numbers too."""

    source: int
    axis: int
    start: Dim
    stop: Dim


@dataclass(frozen=True)
class Siblings:
    """Like nodes, which are one node of their joined operands.

    ``columns`` are the axes along which the operands are joined, None where all nodes share one.
    """

    nodes: tuple[Node, ...]
    columns: tuple[int | None, ...]
    axis: int


@dataclass(frozen=True)
class Candidate:
    """A node that may be joined with others of an equal ``key``, in the order of ``start``."""

    node: Node
    key: Any
    columns: tuple[int | None, ...]
    axis: int
    cuts: tuple[Slice | None, ...]


class SliceFinder:
    """Reads a list of nodes for what can be joined."""

    def __init__(self, nodes: Sequence[Node], builder: Builder, sizes: Mapping[str, int]) -> None:
        self.nodes, self.builder, self.sizes = nodes, builder, sizes
        self.made = {o: n for n in nodes for o in n.outputs}
        self.slices = {n.output for n in nodes if n.op == "slice"}

    def count(self, value: int) -> int:
        """The number of entries."""
        total = 1
        for dim in self.builder.types[value].shape:
            total *= dim.resolve(self.sizes)
        return total

    def as_slice(self, value: int) -> Slice | None:
        """A value as a slice of another."""
        if value not in self.slices:
            return None
        node = self.made[value]
        start, stop = (Dim.of(node.attributes[name]) for name in ("start", "stop"))
        return Slice(node.inputs[0], node.attributes["axis"], start, stop)

    def out_axis(self, node: Node, position: int, axis: int) -> int | None:
        """The axis of a node's result that an axis of an operand becomes, if it stays whole."""
        types = self.builder.types
        rank = len(types[node.inputs[position]].shape)
        result = len(types[node.output].shape)
        if node.op in ALONG_AXES:
            return axis + result - rank
        if node.op == "take" and position == 0 and axis > 0:
            return axis + len(types[node.inputs[1]].shape) - 1
        if node.op in ("sum", "max"):
            return self._reduced(node, axis)
        if node.op == "expand_dims":
            return axis + int(axis >= node.attributes["axis"])
        if node.op == "squeeze" and axis != node.attributes["axis"]:
            return axis - int(axis > node.attributes["axis"])
        if node.op == "take_along_axis" and axis < rank - 1:
            return axis
        if node.op == "matmul" and position == 0 and axis < rank - 1 and rank == result:
            return axis if len(types[node.inputs[1]].shape) == 2 else None
        return None

    @staticmethod
    def _reduced(node: Node, axis: int) -> int | None:
        axes = node.attributes["axis"]
        if axis in axes:
            return None
        return axis if node.attributes["keepdims"] else axis - sum(a < axis for a in axes)

    def candidate(self, node: Node) -> Candidate | None:
        """The node as one that works on slices, if an operand is a slice."""
        if node.body is not None or self.slices.isdisjoint(node.inputs):
            return None
        found = [self.as_slice(i) for i in node.inputs]
        for position, cut in enumerate(found):
            if cut is None:
                continue
            axis = self.out_axis(node, position, cut.axis)
            if axis is not None:
                return self._with_axis(node, found, axis)
        return None

    def _with_axis(self, node: Node, found: Sequence[Slice | None], axis: int) -> Candidate | None:
        columns: list[int | None] = []
        cuts: list[Slice | None] = []
        key: list[Any] = [node.op, axis, repr(sorted(node.attributes.items()))]
        for position, (value, cut) in enumerate(zip(node.inputs, found, strict=True)):
            own = self._own_axis(node, position, value, axis)
            if own is None:
                columns.append(None)
                cuts.append(None)
                key.append(("shared", value))
            elif cut is not None and cut.axis == own:
                columns.append(own)
                cuts.append(cut)
                key.append(("slice", cut.source, own))
            elif self._cheap(value, node):
                columns.append(own)
                cuts.append(None)
                shape = list(self.builder.types[value].shape)
                shape[own] = ONE
                key.append(("own", tuple(shape)))
            else:
                return None
        if not any(cuts):
            return None  # the slice is one entry, which meets all of the others: nothing is cut
        return Candidate(node, tuple(key), tuple(columns), axis, tuple(cuts))

    def _own_axis(self, node: Node, position: int, value: int, axis: int) -> int | None:
        """The axis of an operand that becomes ``axis`` of the result, None if it has none."""
        shape = self.builder.types[value].shape
        for own in range(len(shape)):
            if self.out_axis(node, position, own) == axis:
                broadcast = shape[own] == ONE and self.builder.types[node.output].shape[axis] != ONE
                return None if broadcast else own
        if node.op == "take_along_axis":
            return axis
        return None

    def _cheap(self, value: int, node: Node) -> bool:
        """Whether joining operands that are not slices costs little beside the work on them."""
        index = self.builder.types[value].kind == "index"
        return index or 4 * self.count(value) <= self.count(node.output)

    def runs(self, candidates: Iterable[Candidate]) -> Iterable[Siblings]:
        """Runs of candidates whose slices lie side by side."""
        run: list[Candidate] = []
        for candidate in sorted(candidates, key=self._first):
            if run and not _follows(run[-1], candidate):
                if len(run) > 1:
                    yield _siblings(run)
                run = []
            run.append(candidate)
        if len(run) > 1:
            yield _siblings(run)

    def _first(self, candidate: Candidate) -> int:
        cut = next(p for p in candidate.cuts if p is not None)
        return cut.start.resolve(self.sizes)


def _follows(left: Candidate, right: Candidate) -> bool:
    return all(
        a is None or (b is not None and a.stop == b.start)
        for a, b in zip(left.cuts, right.cuts, strict=True)
    )


def _siblings(run: Sequence[Candidate]) -> Siblings:
    return Siblings(tuple(c.node for c in run), run[0].columns, run[0].axis)
