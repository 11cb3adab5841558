"""Choice of an axis order for values that are read both permuted and unpermuted, so that the
program permutes fewer entries.

The pass :mod:`.transposes` moves a permutation towards the end of the program, until another node
reads the value without the permutation. If all operands of this value can be computed in permuted
order, this pass computes the value in permuted order. The node that reads the unpermuted value then
gets an inverse permutation, which may cancel a later permutation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from harness.program.axes import Axes, inverse
from harness.program.builder import Builder
from harness.program.dims import ONE, Attributes
from harness.program.ir import Node, reads
from harness.program.passes.order import in_order
from harness.program.primitives import ELEMENTWISE

SAME_AXES = frozenset({*ELEMENTWISE, "relu", "clip", "sigmoid", "astype", "stop_gradient"})


def count_moved(nodes: Sequence[Node], builder: Builder, sizes: Mapping[str, int]) -> int:
    """Count the array entries that the program's permutations move. Permutations inside loops and
    permutations of program inputs are not counted."""
    computed = {o for node in nodes for o in node.outputs}
    permuted = (n.output for n in nodes if n.op == "permute_dims" and n.inputs[0] in computed)
    return sum(prod(d.resolve(sizes) for d in builder.types[v].shape) for v in permuted)


def permuted_variants(
    nodes: Sequence[Node], results: Sequence[int], builder: Builder
) -> Iterator[tuple[Node, ...]]:
    """Yield variants of the program. Each variant chooses one value that some nodes read permuted
    and others unpermuted, and computes this value in permuted order."""
    makers = {o: node for node in nodes for o in node.outputs}
    uses = Counter([*results, *(v for node in nodes for v in reads(node))])
    impossible: set[tuple[int, Axes]] = set()
    for node in nodes:
        if node.op != "permute_dims" or uses[node.inputs[0]] < 2:
            continue
        axes: Axes = tuple(node.attributes["axes"])
        permuted = _PermutedOperands(builder, makers, impossible=impossible)
        if node.inputs[0] in makers and permuted.permute(node.inputs[0], axes, node.output):
            replaced_values = permuted.replaced_values()
            other_nodes = (
                n for n in nodes if n is not node and replaced_values.isdisjoint(n.outputs)
            )
            yield in_order([*permuted.nodes, *permuted.inverse_nodes(), *other_nodes])


@dataclass
class _PermutedOperands:
    """A value and its operands, recomputed in a different order of axes.

    ``makers`` maps a value to the node that computes it. ``new_values`` maps pairs (old value,
    axes) to the permuted value. ``impossible`` has the pairs (old value, axes) that cannot be
    computed.
    """

    builder: Builder
    makers: Mapping[int, Node]
    nodes: list[Node] = field(default_factory=list)
    new_values: dict[tuple[int, Axes], int] = field(default_factory=dict)
    # Pairs (value, axes): values that cannot be computed in this order of axes.
    impossible: set[tuple[int, Axes]] = field(default_factory=set)

    def replaced_values(self) -> set[int]:
        """Return the old values that have been replaced."""
        return {value for value, _ in self.new_values}

    def inverse_nodes(self) -> list[Node]:
        """Return permutation nodes that compute the old values from the new values."""
        first = {old: (new, axes) for (old, axes), new in reversed(self.new_values.items())}
        return [
            Node("permute_dims", (new,), (old,), {"axes": inverse(axes)})
            for old, (new, axes) in first.items()
        ]

    def permute(self, value: int, axes: Axes, number: int) -> bool:
        """Compute ``value`` with its axes permuted by ``axes``. The result gets the value number
        ``number``. Return False if the value cannot be computed in this order."""
        goal, pending = (value, axes), [(value, axes)]
        while pending:
            key = pending[-1]
            if self._is_done(key):
                pending.pop()
                continue
            node = self.makers[key[0]]
            operands = self._operands(node, key[1])
            permuted = [k for k in operands or () if k[1] and self.rank(k[0]) == len(k[1])]
            missing = [k for k in permuted if not self._is_done(k)]
            if operands is None or not self.impossible.isdisjoint(permuted):
                self.impossible.add(key)
            elif missing:
                pending += missing
            else:
                inputs = tuple(self._in_order(*operand) for operand in operands)
                new = replace(node, inputs=inputs, attributes=_permuted_attributes(node, key[1]))
                self.new_values[key] = self.emit(new, *key, number if key == goal else None)
        return goal in self.new_values

    def _is_done(self, key: tuple[int, Axes]) -> bool:
        """Return whether (value, axes) needs no more work. This holds if the permuted value exists,
        if it is known that the permuted value cannot be computed, or if the value is a program
        input."""
        return key in self.new_values or key in self.impossible or key[0] not in self.makers

    def _operands(self, node: Node, axes: Axes) -> list[tuple[int, Axes]] | None:
        """Return pairs (operand, axes): to compute its result in the order ``axes``, the node needs
        the operand permuted by these axes. Empty axes mean that the operand stays unchanged. Return
        None if the node cannot compute its result in this order."""
        rank, inputs = len(axes), node.inputs
        if node.op in SAME_AXES:
            return [(i, () if _is_unchanged(self.rank(i), axes) else axes) for i in inputs]
        if node.op == "matmul" and self.rank(inputs[1]) == 2 and axes[-1] == rank - 1:
            return [(inputs[0], axes), (inputs[1], ())]
        if node.op in ("sum", "max") and node.attributes["keepdims"]:
            return [(inputs[0], axes)]
        if node.op in ("take", "one_hot"):
            index_rank = self.rank(inputs[-1])
            if axes[index_rank:] == tuple(range(index_rank, rank)):
                return [*((i, ()) for i in inputs[:-1]), (inputs[-1], axes[:index_rank])]
        return None

    def _in_order(self, value: int, axes: Axes) -> int:
        """Return a value with its axes permuted by ``axes``. If the value has fewer axes than
        ``axes``, axes of length 1 are first added in front."""
        if not axes:
            return value
        if (value, axes) in self.new_values:
            return self.new_values[value, axes]
        missing, type_ = len(axes) - self.rank(value), self.builder.types[value]
        if missing:
            shape = (*[ONE] * missing, *type_.shape)
            wide = self.builder.value(replace(type_, shape=shape))
            self.nodes.append(Node("reshape", (value,), (wide,), {"shape": shape}))
            value = wide
        return self.emit(Node("permute_dims", (value,), (), {"axes": axes}), value, axes)

    def emit(self, node: Node, value: int, axes: Axes, number: int | None = None) -> int:
        """Append a copy of ``node`` that computes ``value`` with its axes permuted by ``axes``.
        Return the number of the permuted value: ``number``, or a new number by default."""
        type_ = self.builder.types[value]
        if number is None:
            number = self.builder.value(
                replace(type_, shape=tuple(type_.shape[axis] for axis in axes))
            )
        self.nodes.append(replace(node, outputs=(number,)))
        return number

    def rank(self, value: int) -> int:
        """Return the number of axes of a value."""
        return len(self.builder.types[value].shape)


def _is_unchanged(rank: int, axes: Axes) -> bool:
    """Return whether an operand with ``rank`` axes stays unchanged if the result of its node is
    permuted by ``axes``."""
    first = len(axes) - rank
    return axes[first:] == tuple(range(first, len(axes)))


def _permuted_attributes(node: Node, axes: Axes) -> Attributes:
    if node.op not in ("sum", "max"):
        return node.attributes
    reduced = (inverse(axes)[axis] for axis in node.attributes["axis"])
    return {**node.attributes, "axis": tuple(sorted(reduced))}
