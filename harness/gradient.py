"""Reverse-mode differentiation of a program: the result is again nodes in the same primitives.

The backward pass is written as a careful engineer would write it: the forward loop stacks only
what the backward loop reads, and a weight that is used at every step gets its gradient from one
product over all steps after the loop, not from a sum of small ones inside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.builder import Builder
from harness.derivatives import CONSTANT, RULES
from harness.dims import Shape
from harness.program import Block, Node, Port, Program, Type, inline_calls, needed_nodes


@dataclass(frozen=True)
class Derivative:
    """A program with its gradient appended.

    ``seeds`` are the cotangents that come in, one for each differentiated output; ``gradients``
    are those that go out, one for each value differentiated against, in the order asked for.
    """

    program: Program
    seeds: tuple[Port, ...]
    gradients: tuple[Port, ...]


def differentiate(
    program: Program, outputs: Sequence[Port], against: Sequence[Port], keep: Iterable[int] = ()
) -> Derivative:
    """The vector-Jacobian product of ``outputs`` with respect to ``against``.

    The gradient of a value that no output depends on is zeros of its shape. Nodes that neither
    the outputs, the gradients nor the values in ``keep`` need are left out.
    """
    builder = Builder(dict(program.types), dict(program.names))
    wanted = [*(port.value for port in outputs), *keep]
    forward = list(hoist(needed_nodes(inline_calls(program.nodes), wanted)))
    reverse = Reverse(builder, forward, active_values(forward, {p.value for p in against}))
    seeds = []
    for port in outputs:
        seed = builder.value(builder.types[port.value], f"cotangent of {port.name}")
        seeds.append(Port(port.name, seed))
        if reverse.active(port.value):
            reverse.add(port.value, seed)
    reverse.run(forward)
    gradients = tuple(
        Port(p.name, reverse.cotangent(p.value, builder.types[p.value].shape)) for p in against
    )
    nodes = needed_nodes([*forward, *builder.nodes], [*wanted, *(p.value for p in gradients)])
    derived = replace(program, nodes=nodes, types=builder.types, names=builder.names)
    return Derivative(derived, tuple(seeds), gradients)


def hoist(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Move what does not change from step to step out of the loops."""
    result: list[Node] = []
    for node in nodes:
        if node.op != "scan" or node.body is None:
            result.append(node)
            continue
        inside = set(node.body.inputs)
        kept: list[Node] = []
        for inner in node.body.nodes:
            if inside.intersection(inner.inputs):
                kept.append(inner)
                inside.update(inner.outputs)
            else:
                result.append(inner)
        result.append(replace(node, body=replace(node.body, nodes=tuple(kept))))
    return tuple(result)


def active_values(nodes: Iterable[Node], against: set[int]) -> set[int]:
    """The values through which a derivative with respect to ``against`` flows."""
    active = set(against)
    for node in nodes:
        if node.op == "scan" and node.body is not None:
            _activate_scan(node, node.body, active)
        elif node.op not in CONSTANT and active.intersection(node.inputs):
            active.update(node.outputs)
    return active


def _activate_scan(node: Node, body: Block, active: set[int]) -> None:
    carries = node.attributes["carries"]
    active.update(b for b, i in zip(body.inputs, node.inputs, strict=True) if i in active)
    while True:
        before = len(active)
        active |= active_values(body.nodes, active)
        active.update(
            carry
            for carry, after in zip(body.inputs[:carries], body.outputs[:carries], strict=True)
            if after in active
        )
        if len(active) == before:
            break
    active.update(o for o, b in zip(node.outputs, body.outputs, strict=True) if b in active)


@dataclass
class Reverse:
    """One backward pass over a list of nodes, collecting cotangents by value."""

    builder: Builder
    forward: list[Node]
    live: set[int]
    cotangents: dict[int, int] = field(default_factory=dict)

    def active(self, value: int) -> bool:
        """Whether a derivative is wanted for ``value``."""
        return value in self.live

    def emit(self, op: str, *inputs: int, **attributes: Any) -> int:
        """Append a primitive of the backward pass."""
        return self.builder.emit(op, *inputs, **attributes)

    def constant(self, value: float) -> int:
        """A literal number."""
        return self.builder.constant(value)

    def see(self, value: int) -> int:
        """The forward value, readable from the backward pass."""
        return value

    def add(self, value: int, cotangent: int) -> None:
        """Add to a value's cotangent, summing over the axes along which it was broadcast."""
        if not self.active(value):
            return
        cotangent = self.builder.reduce_to(cotangent, self.builder.types[value].shape)
        if value in self.cotangents:
            cotangent = self.emit("add", self.cotangents[value], cotangent)
        self.cotangents[value] = cotangent

    def add_product(self, weight: int, left: int, cotangent: int) -> None:
        """Add ``left.T @ cotangent``, summed over all leading axes, to a weight's cotangent."""
        rank = len(self.builder.types[left].shape)
        axes = tuple(range(rank - 1))
        self.add(weight, self.emit("tensordot", self.see(left), cotangent, axes=(axes, axes)))

    def cotangent(self, value: int, shape: Shape) -> int:
        """The collected cotangent, zeros if nothing came."""
        if value in self.cotangents:
            return self.cotangents[value]
        return self.builder.zeros(shape)

    def run(self, nodes: Sequence[Node]) -> None:
        """Go through the nodes from the last to the first."""
        for node in reversed(tuple(nodes)):
            if not any(o in self.cotangents for o in node.outputs):
                continue
            self.builder.place = node.place
            if node.op == "scan":
                self._scan(node)
            elif node.op not in CONSTANT:
                RULES[node.op](self, node, self.cotangents[node.output])

    def _scan(self, node: Node) -> None:
        step = _ScanReverse(self.builder, node, self.live)
        gradients, augmented = step.build(self.cotangents)
        self.forward[self.forward.index(node)] = augmented
        for value, cotangent in gradients:
            self.add(value, cotangent)


class _ScanReverse(Reverse):
    """The backward pass of a loop's body, and the loop made of it."""

    def __init__(self, builder: Builder, node: Node, live: set[int]) -> None:
        assert node.body is not None
        super().__init__(builder, [], live)
        self.node, self.body = node, node.body
        self.count: int = node.attributes["carries"]
        self.local = set(self.body.inputs).union(*(n.outputs for n in self.body.nodes))
        self.slices: dict[int, int] = {}  # forward value -> its slice in the backward body
        self.products: list[tuple[int, int, int]] = []  # weight, left forward value, cotangent
        self.sums: list[tuple[int, int]] = []  # outer value, cotangent of one step

    def see(self, value: int) -> int:
        if value not in self.local:
            return value
        if value not in self.slices:
            self.slices[value] = self.builder.value(self.builder.types[value])
        return self.slices[value]

    def add(self, value: int, cotangent: int) -> None:
        if value in self.local:
            super().add(value, cotangent)
        elif self.active(value):
            self.sums.append((value, cotangent))

    def add_product(self, weight: int, left: int, cotangent: int) -> None:
        if weight in self.local:
            super().add_product(weight, left, cotangent)
        elif left in self.local:
            self.see(left)
            self.products.append((weight, left, cotangent))
        else:
            super().add_product(weight, left, cotangent)

    def build(self, outer: Mapping[int, int]) -> tuple[list[tuple[int, int]], Node]:
        """The cotangents of the loop's inputs and captures, and the loop with its stacks."""
        b, count = self.builder, self.count
        types = b.types
        carried = [i for i, v in enumerate(self.body.inputs[:count]) if self.active(v)]
        start = [
            outer.get(self.node.outputs[i]) or b.zeros(types[self.node.outputs[i]].shape)
            for i in carried
        ]
        stacks = [
            (body, outer[out])
            for body, out in zip(self.body.outputs[count:], self.node.outputs[count:], strict=True)
            if out in outer
        ]
        b.begin()
        entering = [b.value(types[self.body.inputs[i]]) for i in carried]
        arriving = [b.value(types[body]) for body, _ in stacks]
        for i, cotangent in zip(carried, entering, strict=True):
            self.add(self.body.outputs[i], cotangent)
        for (body, _), cotangent in zip(stacks, arriving, strict=True):
            self.add(body, cotangent)
        self.run(self.body.nodes)
        leaving = [self._of_input(self.body.inputs[i]) for i in carried]
        wanted = [v for v in self.body.inputs[count:] if v in self.cotangents]
        given = [self.cotangents[v] for v in wanted]
        extra = list(dict.fromkeys([c for _, _, c in self.products] + [c for _, c in self.sums]))
        residuals = list(self.slices)
        inputs = [*entering, *arriving, *(self.slices[v] for v in residuals)]
        block = b.end(inputs, [*leaving, *given, *extra])
        augmented, whole = self._augment(residuals)
        sequences = [*(c for _, c in stacks), *(whole[v] for v in residuals)]
        last, stacked = b.scan(block, start, sequences, reverse=not self.node.attributes["reverse"])
        results = [(self.node.inputs[i], c) for i, c in zip(carried, last, strict=True)]
        position = {v: self.node.inputs[self.body.inputs.index(v)] for v in wanted}
        results += [(position[v], c) for v, c in zip(wanted, stacked, strict=False)]
        by_step = dict(zip(extra, stacked[len(wanted) :], strict=True))
        results += self._captures(whole, by_step)
        return results, augmented

    def _of_input(self, value: int) -> int:
        return self.cotangent(value, self.builder.types[value].shape)

    def _captures(
        self, whole: Mapping[int, int], by_step: Mapping[int, int]
    ) -> list[tuple[int, int]]:
        results = []
        for weight, left, cotangent in self.products:
            rank = len(self.builder.types[left].shape)
            axes = tuple(range(rank))
            stacks = (whole[left], by_step[cotangent])
            results.append((weight, self.emit("tensordot", *stacks, axes=(axes, axes))))
        for value, cotangent in self.sums:
            results.append((value, self.emit("sum", by_step[cotangent], axis=(0,), keepdims=False)))
        return results

    def _augment(self, residuals: Sequence[int]) -> tuple[Node, dict[int, int]]:
        """The forward loop, also stacking the residuals; and where each one's stack is."""
        sequences = dict(
            zip(self.body.inputs[self.count :], self.node.inputs[self.count :], strict=True)
        )
        whole = {v: sequences[v] for v in residuals if v in sequences}
        length = self.builder.types[self.node.inputs[self.count]].shape[0]
        added = [v for v in residuals if v not in sequences]
        for value in added:
            inner = self.builder.types[value]
            whole[value] = self.builder.value(Type((length, *inner.shape), inner.kind, inner.bound))
        body = replace(self.body, outputs=(*self.body.outputs, *added))
        outputs = (*self.node.outputs, *(whole[v] for v in added))
        return replace(self.node, body=body, outputs=outputs), whole
