"""Merging of several equal operations into one operation, e.g. of the matrix products for the gates
of an LSTM.

Products with the same left operand are merged by joining the columns of their right operands: ``x @
W, x @ V`` becomes ``x @ [W, V]``. Products with the same right operand are merged by joining rows:
``x @ W, y @ W`` becomes ``[x; y] @ W``. Then other equal operations on neighbouring slices are
merged too: ``f(x[:n]), f(x[n:])`` becomes ``f(x)``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.program.builder import Builder
from harness.program.dims import ONE, Dim
from harness.program.ir import Block, Node
from harness.program.passes.order import acyclic, are_independent, in_order, independent
from harness.program.passes.rewriter import COMMUTATIVE, joined_type
from harness.program.primitives import ELEMENTWISE

# Slices of one value, and the equal operations on these slices that can be merged.

FUSED = ("sigmoid", "relu", "clip", "sigmoid_gradient", "tanh_gradient", "relu_gradient")
ALONG_AXES = frozenset({*ELEMENTWISE, *FUSED, "clip_gradient", "stop_gradient", "astype"})


@dataclass(frozen=True)
class Slice:
    """A value that is the slice ``start:stop`` of the value ``source`` along an axis."""

    source: int
    axis: int
    start: Dim
    stop: Dim


@dataclass(frozen=True)
class Siblings:
    """A group of ``nodes`` with the same operation, which can be merged into one node: its operands
    are the concatenated operands of these nodes.

    ``columns`` has one item for each operand: the axis along which the operands of the nodes are
    concatenated, or None if all nodes have the same operand. ``axis`` is the corresponding axis of
    the result.
    """

    nodes: tuple[Node, ...]
    columns: tuple[int | None, ...]
    axis: int


@dataclass(frozen=True)
class Candidate:
    """A node that reads slices. Nodes with the same ``key`` whose slices are neighbours can be
    merged into one node.

    ``cuts`` has one item for each operand: the slice that the node reads, or None if the operand is
    not a slice. ``columns`` has the axis along which each operand would be joined, or None if all
    nodes have the same operand. ``axis`` is the corresponding axis of the result.
    """

    node: Node
    key: Any
    columns: tuple[int | None, ...]
    axis: int
    cuts: tuple[Slice | None, ...]


class SliceFinder:
    """A search through a list of nodes for nodes that read slices and can be merged into one
    node."""

    def __init__(self, nodes: Sequence[Node], builder: Builder, sizes: Mapping[str, int]) -> None:
        self.nodes, self.builder, self.sizes = nodes, builder, sizes
        self.makers = {o: n for n in nodes for o in n.outputs}
        self.slices = {n.output for n in nodes if n.op == "slice"}

    def count(self, value: int) -> int:
        """Return the number of entries of a value."""
        total = 1
        for dim in self.builder.types[value].shape:
            total *= dim.resolve(self.sizes)
        return total

    def as_slice(self, value: int) -> Slice | None:
        """Return the value as a :class:`Slice`, if a slice node computes it; otherwise None."""
        if value not in self.slices:
            return None
        node = self.makers[value]
        start, stop = (Dim.of(node.attributes[name]) for name in ("start", "stop"))
        return Slice(node.inputs[0], node.attributes["axis"], start, stop)

    def out_axis(self, node: Node, position: int, axis: int) -> int | None:
        """Return the axis of a node's result that corresponds to ``axis`` of the operand at
        ``position``; None if there is no such axis."""
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
        """Return the node as a candidate for merging with other nodes; return None unless one of
        its operands is a slice."""
        if node.body is not None or self.slices.isdisjoint(node.inputs):
            return None
        slices = [self.as_slice(i) for i in node.inputs]
        for position, cut in enumerate(slices):
            if cut is None:
                continue
            axis = self.out_axis(node, position, cut.axis)
            if axis is not None:
                return self._with_axis(node, slices, axis)
        return None

    def _with_axis(self, node: Node, slices: Sequence[Slice | None], axis: int) -> Candidate | None:
        columns: list[int | None] = []
        cuts: list[Slice | None] = []
        key: list[Any] = [node.op, axis, repr(sorted(node.attributes.items()))]
        for position, (value, cut) in enumerate(zip(node.inputs, slices, strict=True)):
            own_axis = self._own_axis(node, position, value, axis)
            if own_axis is None:
                columns.append(None)
                cuts.append(None)
                key.append(("shared", value))
            elif cut is not None and cut.axis == own_axis:
                columns.append(own_axis)
                cuts.append(cut)
                key.append(("slice", cut.source, own_axis))
            elif self._is_small(value, node):
                columns.append(own_axis)
                cuts.append(None)
                shape = list(self.builder.types[value].shape)
                shape[own_axis] = ONE
                key.append(("own", tuple(shape)))
            else:
                return None
        if not any(cuts):
            return None  # the slice has one entry, which is broadcast along the axis
        return Candidate(node, tuple(key), tuple(columns), axis, tuple(cuts))

    def _own_axis(self, node: Node, position: int, value: int, axis: int) -> int | None:
        """Return the axis of the operand ``value`` at ``position`` that corresponds to ``axis`` of
        the node's result, or None if there is no such axis."""
        shape = self.builder.types[value].shape
        for operand_axis in range(len(shape)):
            if self.out_axis(node, position, operand_axis) == axis:
                broadcast = (
                    shape[operand_axis] == ONE
                    and self.builder.types[node.output].shape[axis] != ONE
                )
                return None if broadcast else operand_axis
        if node.op == "take_along_axis":
            return axis
        return None

    def _is_small(self, value: int, node: Node) -> bool:
        """Return whether an operand that is not a slice is so small that joining it takes little
        time compared with running the node."""
        index = self.builder.types[value].kind == "index"
        return index or 4 * self.count(value) <= self.count(node.output)

    def neighbour_groups(self, candidates: Iterable[Candidate]) -> Iterable[Siblings]:
        """Yield groups of candidates (nodes that read slices) whose slices are next to each other,
        so that each group can be merged into one node."""

        def first(candidate: Candidate) -> int:
            cut = next(p for p in candidate.cuts if p is not None)
            return cut.start.resolve(self.sizes)

        run: list[Candidate] = []
        for candidate in sorted(candidates, key=first):
            if run and not _is_next(run[-1], candidate):
                if len(run) > 1:
                    yield _as_siblings(run)
                run = []
            run.append(candidate)
        if len(run) > 1:
            yield _as_siblings(run)


def _is_next(left: Candidate, right: Candidate) -> bool:
    return all(
        a is None or (b is not None and a.stop == b.start)
        for a, b in zip(left.cuts, right.cuts, strict=True)
    )


def _as_siblings(run: Sequence[Candidate]) -> Siblings:
    return Siblings(tuple(c.node for c in run), run[0].columns, run[0].axis)


# Operations that often follow a product, and do not show for what the product is used.
CHAINED = frozenset({"add", "subtract", "take"})


def join(
    nodes: Iterable[Node], builder: Builder, sizes: Mapping[str, int], fuses: bool = False
) -> tuple[Node, ...]:
    """Merge equal operations into one operation, also inside loops.

    If ``fuses`` is true (the compiler is XLA), products that are read by different loops are not
    merged: XLA would compute the merged value inside these loops, several times per step.
    """

    def joined(body: Block) -> Block:
        return replace(body, nodes=_Merger(builder, sizes, body, fuses).run(body.nodes))

    nodes = tuple(replace(n, body=joined(n.block)) if n.op == "scan" else n for n in nodes)
    return _Merger(builder, sizes, None, fuses).run(nodes)


@dataclass
class _Merger:
    """A pass that merges equal nodes in the body of a loop, or outside all loops if ``body`` is
    None."""

    builder: Builder
    sizes: Mapping[str, int]
    body: Block | None
    fuses: bool

    def run(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        nodes = _slices_first(nodes)
        while groups := self._find_groups(nodes):
            nodes = _slices_first(self._merge_groups(nodes, groups))
        return nodes

    def _find_groups(self, nodes: Sequence[Node]) -> list[Siblings]:
        """Return groups of nodes that can be merged in one pass: nodes on neighbouring slices if
        there are any, otherwise matrix products."""
        finder = SliceFinder(nodes, self.builder, self.sizes)
        buckets: dict[Any, list[Any]] = defaultdict(list)
        for node in nodes:
            candidate = finder.candidate(node)
            if candidate is not None:
                buckets[candidate.key].append(candidate)
        groups = [g for bucket in buckets.values() for g in finder.neighbour_groups(bucket)]
        # Largest group first: merging small groups first could split the largest group.
        products = sorted(self._products(nodes, finder), key=lambda g: -len(g.nodes))
        for bucket in filter(None, (groups, products)):
            independent_groups = are_independent(nodes, [g.nodes for g in bucket])
            disjoint = _disjoint(
                g for g, is_apart in zip(bucket, independent_groups, strict=True) if is_apart
            )
            if disjoint:
                return disjoint if acyclic(nodes, [g.nodes for g in disjoint]) else disjoint[:1]
        return []

    def _products(self, nodes: Sequence[Node], finder: SliceFinder) -> Iterator[Siblings]:
        """Yield groups of matrix products that can be merged because they have the same left or the
        same right operand."""
        left: dict[Any, list[Node]] = defaultdict(list)
        right: dict[Any, list[Node]] = defaultdict(list)
        types = self.builder.types
        loops = _loops(nodes) if self.fuses else {}
        for node in nodes:
            if node.op != "matmul" or len(types[node.inputs[1]].shape) != 2:
                continue
            if self._is_cheap_to_join(node.inputs[1], finder, node):
                left[node.inputs[0], loops.get(node.output)].append(node)
            if self.body is None:
                right[(node.inputs[1], types[node.inputs[0]].shape[1:])].append(node)
        shared = [products for products in left.values() if len(products) > 1]
        users = _users(nodes) if shared else {}
        for products in shared:
            axis = len(types[products[0].output].shape) - 1
            yield Siblings(_sort_by_use(products, users), (None, 1), axis)
        for products in right.values():
            chosen = independent(nodes, products) if len(products) > 1 else ()
            if len(chosen) > 1:
                yield Siblings(chosen, (0, None), 0)

    def _is_cheap_to_join(self, weight: int, finder: SliceFinder, node: Node) -> bool:
        """Return whether concatenating the right operand ``weight`` with others takes little time.
        In a loop, the weight must be loop-invariant; outside loops, it must not be larger than the
        product."""
        if self.body is not None:
            return weight not in finder.makers and weight not in self.body.inputs
        return finder.count(weight) <= finder.count(node.output)

    def _merge_groups(self, nodes: Sequence[Node], groups: Iterable[Siblings]) -> tuple[Node, ...]:
        makers = {o: n for n in nodes for o in n.outputs}
        position_of = {id(node): i for i, node in enumerate(nodes)}
        replacements = [[node] for node in nodes]
        for siblings in groups:
            positions = [position_of[id(node)] for node in siblings.nodes]
            for position in positions:
                replacements[position] = []
            replacements[max(positions)] = self._merge(siblings, makers)
        return in_order([node for new_nodes in replacements for node in new_nodes])

    def _merge(self, siblings: Siblings, makers: Mapping[int, Node]) -> list[Node]:
        """Return the nodes that replace the group ``siblings``: nodes that join its operands, one
        merged node, and slices of the merged result. ``makers`` maps a value to the node that
        computes it."""
        added: list[Node] = []
        operands = []
        for position, axis in enumerate(siblings.columns):
            values = [node.inputs[position] for node in siblings.nodes]
            operands.append(
                values[0] if axis is None else self._join_operand(values, axis, makers, added)
            )
        first, types = siblings.nodes[0], self.builder.types
        shape = list(types[first.output].shape)
        lengths = [types[node.output].shape[siblings.axis] for node in siblings.nodes]
        shape[siblings.axis] = sum(lengths[1:], lengths[0])
        merged = self.builder.value(replace(types[first.output], shape=tuple(shape)))
        added.append(replace(first, inputs=tuple(operands), outputs=(merged,)))
        start = Dim()
        for node, length in zip(siblings.nodes, lengths, strict=True):
            attributes = {"axis": siblings.axis, "start": start, "stop": start + length}
            added.append(Node("slice", (merged,), node.outputs, attributes, place=node.place))
            start = start + length
        return added

    def _join_operand(
        self, values: Sequence[int], axis: int, makers: Mapping[int, Node], added: list[Node]
    ) -> int:
        """Return the joined operand. It is a single slice if ``values`` are neighbouring slices of
        one value, otherwise their concatenation. The nodes that compute it are appended to the list
        ``added``. ``makers`` maps a value to the node that computes it."""
        parts = [makers.get(v) for v in values]
        first, last = parts[0], parts[-1]
        if first is not None and last is not None and _neighbours(parts, axis):
            attributes = {**first.attributes, "stop": last.attributes["stop"]}
            source = first.inputs[0]
            length_of_source = self.builder.types[source].shape[axis]
            if (
                Dim.of(attributes["start"]) == Dim()
                and Dim.of(attributes["stop"]) == length_of_source
            ):
                return source
            node = replace(first, attributes=attributes, outputs=())
            length = Dim.of(attributes["stop"]) - Dim.of(attributes["start"])
            shape = list(self.builder.types[source].shape)
            shape[axis] = length
            value = self.builder.value(replace(self.builder.types[source], shape=tuple(shape)))
            added.append(replace(node, outputs=(value,)))
            return value
        value = self.builder.value(joined_type([self.builder.types[v] for v in values], axis))
        added.append(Node("concat", tuple(values), (value,), {"axis": axis}))
        return value


def _disjoint(groups: Iterable[Siblings]) -> list[Siblings]:
    """Keep a group only if it shares no node with a group that was kept before."""
    selected, used = [], set[int]()
    for siblings in groups:
        ids = set(map(id, siblings.nodes))
        if used.isdisjoint(ids):
            selected.append(siblings)
            used |= ids
    return selected


def _slices_first(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Put slices first among the operands of commutative operations, so that equal operations have
    the same operand order and can be merged."""
    nodes = tuple(nodes)
    parts = {node.output for node in nodes if node.op == "slice"}
    return tuple(
        replace(node, inputs=tuple(sorted(node.inputs, key=lambda v: v not in parts)))
        if node.op in COMMUTATIVE and not parts.isdisjoint(node.inputs)
        else node
        for node in nodes
    )


def _neighbours(parts: Sequence[Node | None], axis: int) -> bool:
    stop = None
    source = None
    for part in parts:
        if part is None or part.op != "slice" or part.attributes["axis"] != axis:
            return False
        if source is not None and (
            part.inputs != source or Dim.of(part.attributes["start"]) != stop
        ):
            return False
        source, stop = part.inputs, Dim.of(part.attributes["stop"])
    return True


def _users(nodes: Iterable[Node]) -> dict[int, list[Node]]:
    """Return a dictionary from each value to the nodes that read it, also inside loops. If a node
    in a loop reads the slice of a sequence, it is listed as a reader of the sequence."""
    users: dict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        for value in node.inputs:
            users[value].append(node)
        if node.body is not None:
            for value, readers in _users(node.body.nodes).items():
                users[value] += readers
            for sequence, value in zip(node.inputs, node.body.inputs, strict=True):
                users[sequence] = [n for n in users[sequence] if n is not node] + users[value]
    return users


def _loops(nodes: Sequence[Node]) -> dict[int, int]:
    """Return a dictionary from value to loop. A value is included if only one loop reads it,
    directly or through other nodes. The loop is given as the number of its first result."""
    # The loops that depend on each value.
    ends: dict[int, set[int]] = defaultdict(set)
    for node in reversed(nodes):
        into = {node.outputs[0]} if node.body else ends[node.output]
        for value in node.inputs:
            ends[value] |= into
    return {value: min(loops) for value, loops in ends.items() if len(loops) == 1}


def _sort_by_use(nodes: Sequence[Node], users: Mapping[int, list[Node]]) -> tuple[Node, ...]:
    """Sort matrix products so that products whose results are used by the same operations are
    neighbours. ``users`` maps a value to the nodes that read it.

    Neighbouring products are sorted by the sum that reads them. The gates of a recurrent layer
    therefore have the same order in the products with its input and in the products with its state.
    """
    ends = [_last_in_chain(node.output, users) for node in nodes]
    kinds = [
        tuple(sorted(f"{n.op} {sorted(n.attributes.items())!r}" for n in users.get(end, ())))
        for end in ends
    ]
    first = {kind: min(e for e, k in zip(ends, kinds, strict=True) if k == kind) for kind in kinds}
    order = sorted(range(len(nodes)), key=lambda index: (first[kinds[index]], ends[index]))
    return tuple(nodes[index] for index in order)


def _last_in_chain(value: int, users: Mapping[int, list[Node]]) -> int:
    """Follow a value through the operations in :data:`CHAINED`, as long as a single node reads it.
    Return the result of the last of these operations. ``users`` maps a value to the nodes that read
    it."""
    readers = users.get(value, [])
    while len(readers) == 1 and readers[0].op in CHAINED:
        value = readers[0].output
        readers = users.get(value, [])
    return value
