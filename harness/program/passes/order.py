"""Functions that test and sort nodes by their dependencies."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from harness.program.ir import Node, reads


def independent(nodes: Sequence[Node], group: Sequence[Node]) -> tuple[Node, ...]:
    """Select nodes of a group, in order, such that no selected node depends on another."""
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


def apart(nodes: Sequence[Node], groups: Sequence[Sequence[Node]]) -> list[bool]:
    """Return for each group whether none of its nodes depends on another node of the group."""
    own: dict[int, list[tuple[int, int]]] = defaultdict(list)
    masks, bit = [0] * len(groups), 1
    for number, group in enumerate(groups):
        for node in group:
            own[id(node)].append((number, bit))
            masks[number] |= bit
            bit <<= 1
    behind: dict[int, int] = {}
    found = [True] * len(groups)
    for node in nodes:
        before = 0
        for value in reads(node):
            before |= behind.get(value, 0)
        here = before
        for number, place in own.get(id(node), ()):
            found[number] &= not before & masks[number]
            here |= place
        for output in node.outputs:
            behind[output] = here
    return found


def acyclic(nodes: Sequence[Node], groups: Iterable[Sequence[Node]]) -> bool:
    """Return whether the dependencies have no cycle if each group is merged into one node."""
    one = {id(node): id(group[0]) for group in groups for node in group}
    maker = {o: one.get(id(node), id(node)) for node in nodes for o in node.outputs}
    needs: dict[int, set[int]] = defaultdict(set)
    for node in nodes:
        whole = one.get(id(node), id(node))
        needs[whole] |= {maker[v] for v in reads(node) if v in maker}
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
