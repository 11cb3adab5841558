"""A spec's programs with one thing written otherwise, as a model of a user's own may have it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import count

from harness.program.ir import Node, Program, walk_nodes

Programs = tuple[Program, ...]
# What one program needs to have a node of its own changed.
Change = Callable[[Program], Callable[[Node], Sequence[Node]]]
COMPARISONS = ("less", "less_equal")
SCALING = {"multiply": "product with", "divide": "division by"}
# Where a number is part of what a function is.
FUNCTIONS = ("functions/", "losses/")


def altered(programs: Programs) -> Iterator[tuple[str, Programs]]:
    """What is said of each, and the programs.

    By the place in a file, whatever is made of it: a comparison that is one off, as of a mask, and
    a factor that is one number left out, as the scale of attention.
    """
    program = programs[0]
    for place, op in _places(program, lambda node: node.op in COMPARISONS):
        for by, word in ((1.0, "more"), (-1.0, "less")):
            text = f"the comparison holds for one {word} in {place}"
            yield text, _each(programs, place, op, _further(by))
    factors = _factors(program)
    for place, op in _places(program, lambda n: n.op in SCALING and n.output in factors):
        text = f"the {SCALING[op]} a number is left out in {place}"
        yield text, _each(programs, place, op, _left_out)


def with_constant(
    programs: Programs, own: float, other: float, layers: Collection[str]
) -> Programs:
    """Return programs with another number for a constant in calls of some layers."""

    def changed(node: Node) -> Sequence[Node]:
        if node.op != "constant" or node.attributes.get("value") != own:
            return (node,)
        return (replace(node, attributes={**node.attributes, "value": other}),)

    return tuple(
        _mapped(program, changed, lambda call: call.attributes.get("instance") in layers)
        for program in programs
    )


def _places(program: Program, wanted: Callable[[Node], bool]) -> dict[tuple[str, str], None]:
    """The places of some nodes, each with its operation, in order."""
    nodes = (node for node in walk_nodes(program.nodes) if len(node.outputs) == 1 and wanted(node))
    return dict.fromkeys(
        (node.place, node.op)
        for node in nodes
        if node.place and not any(f in node.place for f in FUNCTIONS)
    )


def _factors(program: Program) -> dict[int, int]:
    """By the value of a product with one number, or a quotient by one, the value that is scaled."""
    numbers: set[int] = set()
    found: dict[int, int] = {}
    for node in walk_nodes(program.nodes):
        if node.body is not None:
            continue
        if all(value in numbers for value in node.inputs):  # also of a constant, which reads none
            numbers.update(value for value in node.outputs if not program.types[value].shape)
        elif node.op in SCALING:
            one, other = node.inputs
            if other in numbers:
                found[node.output] = one
            elif one in numbers and node.op == "multiply":
                found[node.output] = other
    return found


def _further(by: float) -> Change:
    """Add a number to the larger side."""

    def change(program: Program) -> Callable[[Node], Sequence[Node]]:
        new = count(max(program.types) + 1)

        def changed(node: Node) -> Sequence[Node]:
            one, more = next(new), next(new)
            left, right = node.inputs
            return (
                Node("constant", (), (one,), {"value": by}),
                Node("add", (right, one), (more,)),
                replace(node, inputs=(left, more)),
            )

        return changed

    return change


def _left_out(program: Program) -> Callable[[Node], Sequence[Node]]:
    factors = _factors(program)

    def changed(node: Node) -> Sequence[Node]:
        value = factors.get(node.output)
        if value is None:
            return (node,)
        axes = tuple(range(len(program.types[value].shape)))
        return (replace(node, op="permute_dims", inputs=(value,), attributes={"axes": axes}),)

    return changed


def _each(programs: Programs, place: str, op: str, change: Change) -> Programs:
    """Programs with every node of a place and an operation changed."""

    def one(program: Program) -> Program:
        changed = change(program)
        return _mapped(program, lambda n: changed(n) if (n.place, n.op) == (place, op) else (n,))

    return tuple(map(one, programs))


def _mapped(
    program: Program,
    change: Callable[[Node], Sequence[Node]],
    within: Callable[[Node], bool] | None = None,
) -> Program:
    """Return a program with each node changed, in bodies too; or those ``within`` some calls."""

    def one(node: Node, inside: bool) -> Sequence[Node]:
        if node.body is None:
            return change(node) if inside else (node,)
        inside = inside or (within is not None and within(node))
        return (replace(node, body=replace(node.body, nodes=every(node.body.nodes, inside))),)

    def every(nodes: Sequence[Node], inside: bool) -> tuple[Node, ...]:
        return tuple(new for node in nodes for new in one(node, inside))

    return replace(program, nodes=every(program.nodes, within is None))
