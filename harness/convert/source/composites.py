"""Layers with nested layers as single nodes, for which exported source code has functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import replace
from typing import Any

from harness.program.ir import (
    Block,
    Composite,
    Node,
    Program,
    needed,
    needed_nodes,
    reads,
    walk_nodes,
)
from harness.program.signature import call_key

KIND = "composite"


def is_composite(node: Node) -> bool:
    """Return whether a node is a call of a layer with nested layers."""
    return node.op == "call" and node.attributes["kind"] == KIND


def fold(program: Program) -> Program:
    """Return a program in which each call of a layer with nested layers is a node ``call``, whose
    body has the nodes of its equations. Calls of repeated layers become one node with the attribute
    ``repeat``, the number of layers. Only the nodes of outputs and of the new state remain.

    A layer keeps its nodes if a node outside of the layer reads a value inside that depends on
    weights, if the layer reads weights of other layers, or if no input has an axis with the length
    of a free size, e.g. ``batch``.
    """
    results = [port.value for port in (*program.outputs, *program.new_state)]
    nodes = needed_nodes(program.nodes, results)
    for composite in program.composites:
        nodes = _folded(nodes, composite, results, program)
    return replace(program, nodes=_chained(nodes, results, program))


def _folded(
    nodes: tuple[Node, ...], composite: Composite, results: Iterable[int], program: Program
) -> tuple[Node, ...]:
    inputs = tuple(composite.inputs.values())
    body = _equations(nodes, inputs, composite.outputs.values())
    inside = {value for node in body for value in node.outputs}
    outside = _read_outside(nodes, inside, results)
    named = {name: value for name, value in composite.outputs.items() if value in outside}
    outputs = tuple(named.values())
    # The program computes equal values of several layers once. Each layer gets a copy of those that
    # no weight changes.
    free = _without_weights(body, inputs)
    body = _in_order_of_use(body, free)
    every = {value for node in body for value in node.outputs}
    inside = every - free
    outside = _read_outside(nodes, inside, results)
    names = [call_key(node) for node in walk_nodes(body) if node.op == "call"]
    weights = {port.value: port.name for port in (*program.parameters, *program.statistics)}
    names += [weights[value] for node in body for value in node.inputs if value in weights]
    made = [n for n, node in enumerate(nodes) if not set(outputs).isdisjoint(node.outputs)]
    given = [n for n, node in enumerate(nodes) if not set(inputs).isdisjoint(node.outputs)]
    if (
        not outputs
        or not inside.issuperset(outputs)
        or len(set(outputs)) < len(outputs)
        or max(given, default=-1) > made[0]
        or len(set(inputs)) < len(inputs)
        or not any(node.op == "call" for node in walk_nodes(body))
        or not all(f"{name}.".startswith(f"{composite.instance}.") for name in names)
        or inside.difference(outputs) & outside
        or not _lengths(program, every, 0) <= _lengths(program, inputs, 1) | program.sizes.keys()
    ):
        return nodes
    attributes = {
        "kind": KIND,
        "instance": composite.instance,
        "label": composite.label,
        "definition": composite.definition,
        "attributes": composite.attributes,
        "sizes": composite.sizes,
        "roles": tuple(composite.inputs),
        "results": tuple(named),
    }
    call = Node("call", inputs, outputs, attributes, Block(inputs, body, outputs))
    # Nodes between the outputs may read the first output.
    joined = [*nodes[: made[0]], call, *nodes[made[0] :]]
    return needed_nodes([n for n in joined if n is call or inside.isdisjoint(n.outputs)], results)


def _equations(
    nodes: Iterable[Node], inputs: Collection[int], outputs: Iterable[int]
) -> tuple[Node, ...]:
    """Return the nodes that compute outputs from inputs."""
    return needed(
        nodes,
        outputs,
        lambda node: node.outputs,
        lambda node: [value for value in reads(node) if value not in inputs],
    )


def _read_outside(nodes: Iterable[Node], inside: Set[int], results: Iterable[int]) -> set[int]:
    """Return the results, and the values that nodes without outputs in ``inside`` read."""
    others = [node for node in nodes if inside.isdisjoint(node.outputs)]
    return {value for node in others for value in reads(node)}.union(results)


def _without_weights(body: Iterable[Node], inputs: Iterable[int]) -> set[int]:
    """Return the values of a layer's equations that depend only on its inputs, e.g. a mask of
    ``inputs`` with more axes, or positions."""
    known, found = set(inputs), set[int]()
    for node in body:
        if node.op != "call" and found.union(known).issuperset(reads(node)):
            found.update(node.outputs)
    return found


def _in_order_of_use(body: Sequence[Node], free: Set[int]) -> tuple[Node, ...]:
    """Move each node with outputs in ``free`` to its first reader, so that layers with the same
    equations have the same order."""
    made = {value: node for node in body for value in node.outputs}
    ordered: dict[int, Node] = {}

    def add(node: Node) -> None:
        for value in reads(node):
            if value in free and value not in ordered:
                add(made[value])
        ordered.update(dict.fromkeys(node.outputs, node))

    for node in body:
        if free.isdisjoint(node.outputs):
            add(node)
    return tuple({id(node): node for node in ordered.values()}.values())


def _lengths(program: Program, values: Iterable[int], most: int) -> set[str]:
    """Return the names of sizes in the shapes of values. If ``most`` is not 0, leave out lengths
    with more than ``most`` sizes."""
    dims = {dim for value in values for dim in program.types[value].shape}
    return {name for dim in dims if not most or len(dim.names) <= most for name in dim.names}


def _chained(nodes: Sequence[Node], results: Iterable[int], program: Program) -> tuple[Node, ...]:
    """Join calls that repeat a layer: each gets the results of the call before it, which no other
    node reads."""
    read: list[int] = [*results, *(value for node in nodes for value in reads(node))]
    joined: list[Node] = []
    for node in nodes:
        if is_composite(node):
            node = _with_inner_chains(node, program)
            before = joined[-1] if joined else None
            if (
                before is not None
                and is_composite(before)
                and _continues(before, node, program)
                and all(read.count(passed) == 1 for passed in before.outputs)
            ):
                attributes = {**before.attributes, "repeat": before.attributes["repeat"] + 1}
                joined[-1] = replace(before, outputs=node.outputs, attributes=attributes)
                continue
        joined.append(node)
    return tuple(joined)


def _with_inner_chains(node: Node, program: Program) -> Node:
    body = node.block
    nodes = _chained(body.nodes, body.outputs, program)
    attributes = {**node.attributes, "repeat": 1}
    return replace(node, attributes=attributes, body=replace(body, nodes=nodes))


def _continues(before: Node, node: Node, program: Program) -> bool:
    """Return whether a call is the next layer of a repeated layer, with the same equations."""
    base, _, number = str(before.attributes["instance"]).rpartition(".")
    count = before.attributes["repeat"]
    passed = len(before.outputs)
    first, second = ([program.types[i] for i in c.inputs[:passed]] for c in (before, node))
    same = node.inputs[:passed] == before.outputs and node.inputs[passed:] == before.inputs[passed:]
    following = number == "0" and node.attributes["instance"] == f"{base}.{count}"
    return same and following and first == second and canonical(before) == canonical(node)


def canonical(call: Node) -> Any:
    """Return the equations of a call as nested tuples, without value numbers, as a key for
    comparison: two calls with equal equations give equal tuples."""
    numbers: dict[int, int] = {}
    prefix = f"{call_key(call)}."

    def index_of(value: int) -> int:
        return numbers.setdefault(value, len(numbers))

    def block(body: Block) -> Any:
        nodes = needed_nodes(body.nodes, body.outputs)
        inputs = tuple(index_of(i) for i in body.inputs)
        return inputs, tuple(one(n) for n in nodes), tuple(index_of(o) for o in body.outputs)

    def one(node: Node) -> Any:
        inputs = tuple(index_of(i) for i in node.inputs)
        inner = block(node.body) if node.body is not None else None
        attributes = tuple((n, text(v)) for n, v in sorted(node.attributes.items()))
        return node.op, inputs, attributes, inner, tuple(index_of(o) for o in node.outputs)

    def text(value: Any) -> str:
        # The names of nested layers begin with the name of the layer, which may have weights too.
        return f"{value}.".removeprefix(prefix) if isinstance(value, str) else repr(value)

    return block(call.block)
