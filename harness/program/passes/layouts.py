"""A value that is read in two orders of axes made in the one of the two that moves less.

Permutations move down (:mod:`.transposes`) until something reads the value as it was, such as what
goes around the sum over the edges of a graph. Where all that the value is made of can be had in the
other order, it is made in that one, and what read it as it was reads it through the inverse: which
moves down in its turn, and meets the permutations there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from harness.program.builder import Builder
from harness.program.dims import ONE
from harness.program.ir import Node, reads
from harness.program.passes.algebra import ELEMENTWISE
from harness.program.passes.order import in_order
from harness.program.permutations import Axes, inverse

SAME_AXES = frozenset({*ELEMENTWISE, "relu", "clip", "sigmoid", "astype", "stop_gradient"})


def moved(nodes: Sequence[Node], builder: Builder, sizes: Mapping[str, int]) -> int:
    """The entries of all permutations outside of loops, but of what is given."""
    made = {o for node in nodes for o in node.outputs}
    found = (n.output for n in nodes if n.op == "permute_dims" and n.inputs[0] in made)
    return sum(prod(d.resolve(sizes) for d in builder.types[v].shape) for v in found)


def turned(
    nodes: Sequence[Node], wanted: Sequence[int], builder: Builder
) -> Iterator[tuple[Node, ...]]:
    """The nodes with one such value in its other order, for each that there is."""
    made, uses = _known(nodes, wanted)
    fixed: set[tuple[int, Axes]] = set()
    for node in nodes:
        if node.op != "permute_dims" or uses[node.inputs[0]] < 2:
            continue
        axes: Axes = tuple(node.attributes["axes"])
        upwards = _Upwards(builder, made, fixed=fixed)
        if node.inputs[0] in made and upwards.turn(node.inputs[0], axes, node.output) is not None:
            rest = (n for n in nodes if n is not node and not upwards.covers(n))
            yield in_order([*upwards.nodes, *upwards.back(), *rest])


def _known(nodes: Sequence[Node], wanted: Sequence[int]) -> tuple[dict[int, Node], Counter[int]]:
    """What makes each value, and how often it is read."""
    made = {o: node for node in nodes for o in node.outputs}
    return made, Counter([*wanted, *(v for node in nodes for v in reads(node))])


@dataclass
class _Upwards:
    """A value and what it is made of, in another order of axes; ``found`` has the new of each."""

    builder: Builder
    made: Mapping[int, Node]
    nodes: list[Node] = field(default_factory=list)
    found: dict[tuple[int, Axes], int] = field(default_factory=dict)
    # The values that cannot be made in an order.
    fixed: set[tuple[int, Axes]] = field(default_factory=set)

    def covers(self, node: Node) -> bool:
        """Whether what a node makes is made by way of the new."""
        return any(value in node.outputs for value, _ in self.found)

    def back(self) -> list[Node]:
        """What the values were, from the new."""
        first = {old: (new, axes) for (old, axes), new in reversed(self.found.items())}
        return [
            Node("permute_dims", (new,), (old,), {"axes": inverse(axes)})
            for old, (new, axes) in first.items()
        ]

    def turn(self, value: int, axes: Axes, number: int | None = None) -> int | None:
        """A value with its axes in this order, under a ``number`` if one is given; None where it
        cannot be made so."""
        key = value, axes
        if key in self.found or key in self.fixed:
            return self.found.get(key)
        node = self.made.get(value)
        if node is None:
            return self.emit(Node("permute_dims", (value,), (), {"axes": axes}), value, axes)
        new = self._turned(node, axes)
        if new is None:
            self.fixed.add(key)
            return None
        self.found[key] = self.emit(new, value, axes, number)
        return self.found[key]

    def _turned(self, node: Node, axes: Axes) -> Node | None:
        """A node of operands in other orders, which makes its value in this one."""
        attributes, rank = node.attributes, len(axes)
        inputs: list[int | None]
        if node.op in SAME_AXES:
            inputs = [self.aligned(i, axes) for i in node.inputs]
        elif node.op == "matmul" and self.rank(node.inputs[1]) == 2 and axes[-1] == rank - 1:
            inputs = [self.turn(node.inputs[0], axes), node.inputs[1]]
        elif node.op in ("sum", "max") and attributes["keepdims"]:
            inputs = [self.turn(node.inputs[0], axes)]
            gone = (inverse(axes)[axis] for axis in attributes["axis"])
            attributes = {**attributes, "axis": tuple(sorted(gone))}
        elif node.op in ("take", "one_hot"):
            own = self.rank(node.inputs[-1])
            if axes[own:] != tuple(range(own, rank)):
                return None
            inputs = [*node.inputs[:-1], self.turn(node.inputs[-1], axes[:own])]
        else:
            return None
        given = tuple(i for i in inputs if i is not None)
        if len(given) < len(inputs):
            return None
        return replace(node, inputs=given, attributes=attributes)

    def aligned(self, value: int, axes: Axes) -> int | None:
        """As :meth:`turn`, of an operand that may have only the last axes of the result."""
        rank, whole = self.rank(value), len(axes)
        if axes[whole - rank :] == tuple(range(whole - rank, whole)):
            return value
        if rank == whole:
            return self.turn(value, axes)
        shape = self.builder.types[value].shape
        wide = self.builder.value(
            replace(self.builder.types[value], shape=(*[ONE] * (whole - rank), *shape))
        )
        attributes = {"shape": self.builder.types[wide].shape}
        self.nodes.append(Node("reshape", (value,), (wide,), attributes))
        return self.emit(Node("permute_dims", (wide,), (), {"axes": axes}), wide, axes)

    def emit(self, node: Node, value: int, axes: Axes, number: int | None = None) -> int:
        """Append a node whose result is ``value`` with its axes in this order."""
        type_ = self.builder.types[value]
        if number is None:
            number = self.builder.value(
                replace(type_, shape=tuple(type_.shape[axis] for axis in axes))
            )
        self.nodes.append(replace(node, outputs=(number,)))
        return number

    def rank(self, value: int) -> int:
        """The number of axes."""
        return len(self.builder.types[value].shape)
