"""Counts of the floating-point operations (FLOPs) of a program.

A product of ``[m, k]`` and ``[k, n]`` has 2mkn operations. An elementwise primitive has one
operation for each entry of its result. Primitives that only move data have no operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from harness.program.dims import resolve_shape
from harness.program.ir import Node, Type
from harness.program.primitives import ELEMENTWISE

REDUCING = frozenset({"sum", "max", "segment_sum", "overlap_add", "cumulative_sum"})


@dataclass(frozen=True)
class Flops:
    """The number of floating-point operations in matrix products, and in all other primitives."""

    products: int = 0
    elementwise: int = 0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.products + other.products, self.elementwise + other.elementwise)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.products * times, self.elementwise * times)

    @property
    def total(self) -> int:
        """The number of all operations."""
        return self.products + self.elementwise


def count(nodes: Iterable[Node], types: Mapping[int, Type], sizes: Mapping[str, int]) -> Flops:
    """Count the operations of nodes. The body of a loop is counted once for each step."""
    parts = (_of(node, types, sizes) * times for node, times in runs(nodes, types, sizes))
    return sum(parts, Flops())


def runs(
    nodes: Iterable[Node], types: Mapping[int, Type], sizes: Mapping[str, int], times: int = 1
) -> Iterator[tuple[Node, int]]:
    """Yield pairs (node, number of times that the node runs) for all nodes without a body. A node
    in a loop runs once for each step of the loop. ``times`` is how often the list ``nodes`` itself
    runs."""
    for node in nodes:
        if node.body is None:
            yield node, times
        else:
            inner = times * steps_of(node, types, sizes) if node.op == "scan" else times
            yield from runs(node.body.nodes, types, sizes, inner)


def steps_of(node: Node, types: Mapping[int, Type], sizes: Mapping[str, int]) -> int:
    """Return the number of steps of a scan (a loop over time)."""
    return types[node.inputs[node.carries]].shape[0].resolve(sizes)


def _of(node: Node, types: Mapping[int, Type], sizes: Mapping[str, int]) -> Flops:
    def entries(value: int) -> int:
        return prod(resolve_shape(types[value].shape, sizes))

    if node.op == "matmul":
        inner = types[node.inputs[0]].shape[-1].resolve(sizes)
        return Flops(products=2 * entries(node.output) * inner)
    if node.op == "tensordot":
        left = resolve_shape(types[node.inputs[0]].shape, sizes)
        inner = prod(left[axis] for axis in node.attributes["axes"][0])
        return Flops(products=2 * entries(node.output) * inner)
    if node.op in ELEMENTWISE:
        return Flops(elementwise=entries(node.output))
    if node.op in REDUCING:
        return Flops(elementwise=entries(node.inputs[0]))
    return Flops()
