"""Order of nodes by what they read."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

from harness.program.ir import Node, reads


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
