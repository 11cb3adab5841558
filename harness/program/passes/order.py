"""Order of nodes by what they read; rows cut out of longer ones: ``[a, b] -> [a, b, c][:2]``."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Node, reads
from harness.program.passes.rewriter import joined_type


def nested(nodes: Sequence[Node], builder: Builder) -> tuple[Node, ...]:
    """Nodes with rows cut out of longer ones: ``[a, b] -> [a, b, c][:2]``.

    Rows that overlap, such as a loop's states before and after each step, become one first: a value
    can be made in the place of one row only.
    """
    nodes = _one_row(tuple(nodes), builder)
    rows = [node for node in nodes if node.op == "concat"]
    cuts: dict[int, Node] = {}
    for part in rows:
        for row in rows:
            cut = None if row.output in cuts or row is part else _stretch(part, row, builder)
            if cut is not None and len(independent(nodes, (part, row))) == 2:
                cuts[part.output] = cut
                break
    if not cuts:
        return nodes
    return in_order([cuts.get(n.outputs[0], n) if n.op == "concat" else n for n in nodes])


def _one_row(nodes: tuple[Node, ...], builder: Builder) -> tuple[Node, ...]:
    """Nodes with overlapping rows as one: ``[a, b], [b, c] -> [a, b, c]``, and cut out of that."""
    rows = [node for node in nodes if node.op == "concat"]
    for left, right in permutations(rows, 2):
        shared = _overlap(left, right)
        if shared and len(independent(nodes, (left, right))) == 2:
            inputs, axis = (*left.inputs, *right.inputs[shared:]), left.attributes["axis"]
            type_ = joined_type([builder.types[v] for v in inputs], axis)
            row = replace(left, inputs=inputs, outputs=(builder.value(type_),))
            cuts = {id(n): _stretch(n, row, builder) for n in (left, right)}
            return _one_row(in_order([row, *(cuts.get(id(n)) or n for n in nodes)]), builder)
    return nodes


def _overlap(left: Node, right: Node) -> int:
    """How many values at the end of a row begin another that goes on from there."""
    if left.attributes["axis"] != right.attributes["axis"]:
        return 0
    most = min(len(left.inputs), len(right.inputs)) - 1
    counts = range(most, 0, -1)
    return next((n for n in counts if left.inputs[-n:] == right.inputs[:n]), 0)


def _stretch(part: Node, row: Node, builder: Builder) -> Node | None:
    """A row cut out of a longer one that has its values side by side, None if it has not."""
    axis, count = row.attributes["axis"], len(part.inputs)
    if part.attributes["axis"] != axis or count >= len(row.inputs):
        return None
    ends = [Dim()]
    for value in row.inputs:
        ends.append(ends[-1] + builder.types[value].shape[axis])
    for first in range(len(row.inputs) - count + 1):
        if row.inputs[first : first + count] == part.inputs:
            cut = {"axis": axis, "start": ends[first], "stop": ends[first + count]}
            return replace(part, op="slice", inputs=row.outputs, attributes=cut)
    return None


def independent(nodes: Sequence[Node], group: Sequence[Node]) -> tuple[Node, ...]:
    """The largest run of some nodes, from the first on, of which none needs another."""
    places = {id(node): 1 << i for i, node in enumerate(group)}
    behind: dict[int, int] = {}
    chosen: list[Node] = []
    taken = 0
    for node in nodes:
        before = 0
        for value in reads(node):
            before |= behind.get(value, 0)
        own = places.get(id(node), 0)
        if own and not before & taken:
            chosen.append(node)
            taken |= own
        for output in node.outputs:
            behind[output] = before | own
    kept = {id(node) for node in chosen}
    return tuple(node for node in group if id(node) in kept)


def in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes such that each comes after what it reads, else in the order given."""
    maker = {o: i for i, node in enumerate(nodes) for o in node.outputs}
    needs = [{maker[v] for v in reads(node) if v in maker} for node in nodes]
    readers: dict[int, list[int]] = defaultdict(list)
    for i, some in enumerate(needs):
        for j in some:
            readers[j].append(i)
    ready = [i for i, some in enumerate(needs) if not some]
    result = []
    while ready:
        i = heapq.heappop(ready)
        result.append(nodes[i])
        for j in readers[i]:
            needs[j].discard(i)
            if not needs[j]:
                heapq.heappush(ready, j)
    assert len(result) == len(nodes), "joined nodes depend on each other"
    return tuple(result)
