"""An optimizer's rule at one parameter: what is said of a row of entries, of its true shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from harness.program.dims import ONE, Dim, Shape
from harness.program.ir import Node, Type, UpdateRule

# What makes one number of all entries: at a tensor of several parameters it is another number.
REDUCING = frozenset({"sum", "max", "extent"})


def at_shape(
    nodes: Iterable[Node], types: Mapping[int, Type], shape: Sequence[Dim | int]
) -> tuple[Node, ...]:
    """The nodes of a rule for a parameter of that shape: a reduction goes over all of its axes."""
    return tuple(_at(node, types, shape) if node.op in REDUCING else node for node in nodes)


def _at(node: Node, types: Mapping[int, Type], shape: Sequence[Dim | int]) -> Node:
    if node.op == "extent":
        wide = node.attributes["dims"] != ()
        return replace(node, attributes={"dims": tuple(map(Dim.of, shape)) if wide else ()})
    if not types[node.inputs[0]].shape:
        return node
    return replace(node, attributes={**node.attributes, "axis": tuple(range(len(shape)))})


def type_at(type_: Type, shape: Shape) -> Type:
    """The type of a rule's value at a parameter of that shape."""
    if not type_.shape:
        return type_
    return replace(type_, shape=(ONE,) * len(shape) if type_.shape == (ONE,) else shape)


def by_parameter(rule: UpdateRule) -> bool:
    """Whether it matters which entries are those of one parameter.

    Where it does not, the rule holds for a tensor into which a framework has packed several.
    """
    sums = {total.part for total in rule.totals}
    made = (node.op for node in rule.own_nodes if sums.isdisjoint(node.outputs))
    return bool(rule.groups) or not REDUCING.isdisjoint(made)
