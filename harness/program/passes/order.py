"""Functions that test and sort nodes by their dependencies."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from harness.program.ir import Node, reads


def independent(nodes: Sequence[Node], group: Sequence[Node]) -> tuple[Node, ...]:
    """Select nodes of ``group`` so that no selected node depends on another selected node. The
    selection goes through ``nodes`` from first to last; the result has the order of ``group``."""
    bits = {id(node): 1 << i for i, node in enumerate(group)}
    ancestors: dict[int, int] = {}
    chosen: list[Node] = []
    chosen_bits = 0
    for node in nodes:
        own_ancestors = 0
        for value in reads(node):
            own_ancestors |= ancestors.get(value, 0)
        bit = bits.get(id(node), 0)
        if bit and not own_ancestors & chosen_bits:
            chosen.append(node)
            chosen_bits |= bit
        for output in node.outputs:
            ancestors[output] = own_ancestors | bit
    chosen_ids = {id(node) for node in chosen}
    return tuple(node for node in group if id(node) in chosen_ids)


def are_independent(nodes: Sequence[Node], groups: Sequence[Sequence[Node]]) -> list[bool]:
    """Return, for each group of nodes, whether no node of the group depends on another node of the
    group."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    masks, bit = [0] * len(groups), 1
    for number, group in enumerate(groups):
        for node in group:
            places[id(node)].append((number, bit))
            masks[number] |= bit
            bit <<= 1
    ancestors: dict[int, int] = {}
    results = [True] * len(groups)
    for node in nodes:
        own_ancestors = 0
        for value in reads(node):
            own_ancestors |= ancestors.get(value, 0)
        all_ancestors = own_ancestors
        for number, own_bit in places.get(id(node), ()):
            results[number] &= not own_ancestors & masks[number]
            all_ancestors |= own_bit
        for output in node.outputs:
            ancestors[output] = all_ancestors
    return results


def acyclic(nodes: Sequence[Node], groups: Iterable[Sequence[Node]]) -> bool:
    """Return whether the nodes can still be sorted by their dependencies if each group is merged
    into one node."""
    merged = {id(node): id(group[0]) for group in groups for node in group}
    maker = {o: merged.get(id(node), id(node)) for node in nodes for o in node.outputs}
    needs: dict[int, set[int]] = defaultdict(set)
    for node in nodes:
        merged_id = merged.get(id(node), id(node))
        needs[merged_id] |= {maker[v] for v in reads(node) if v in maker}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError:
        return False
    return True


def in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Sort nodes so that each node comes after the nodes whose results it reads. Otherwise keep
    the given order."""
    maker = {o: i for i, node in enumerate(nodes) for o in node.outputs}
    needs = [{maker[v] for v in reads(node) if v in maker} for node in nodes]
    readers: dict[int, list[int]] = defaultdict(list)
    for i, sources in enumerate(needs):
        for j in sources:
            readers[j].append(i)
    ready = [i for i, sources in enumerate(needs) if not sources]
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
