"""Conversion of a plan to a flat list of instructions (operations on views of memory).

Loops are unrolled, because their lengths are known. Values that a loop stacks, or that ``concat``
joins, are computed directly in the memory of the result, so they need not be copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np

from harness.program.ir import Block, Node
from harness.program.plan import Plan
from harness.runtime.executor.buffers import Constant, Operand, View, fresh
from harness.runtime.executor.emit import (
    VIEWS,
    Assembler,
    Work,
    apply_view,
    elementwise,
    find_homes,
)
from harness.runtime.executor.rules import RULES
from harness.runtime.interpreter import resolved

# Operations that are computed in advance if all operands are constants.
FOLDED = ("add", "subtract", "multiply", "divide", "power", "negative", "sqrt", "exp", "log")


class Flattener(Assembler):
    """The list of instructions of a plan. ``env`` maps the number of a value to the view or
    constant that holds it."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.inputs: dict[str, View] = {}
        self.env: dict[int, Operand] = {}
        given_away = set(plan.carried.values())
        for name, value in plan.inputs.items():
            view = self.new(value)
            view.buffer.role = "carried" if name in given_away else "input"
            self.inputs[name] = self.env[value] = view
        self.run(plan.nodes, self.env, {})
        self.results = {name: self._result(self.env[v]) for name, v in plan.outputs.items()}

    def _result(self, operand: Operand) -> View:
        """Return a view for an output of the plan. If ``operand`` is an input, a constant or a
        value that goes from run to run, the output is a copy of it."""
        if isinstance(operand, View) and operand.buffer.role == "temporary":
            return operand
        place = fresh(
            operand.shape, "float" if isinstance(operand, Constant) else operand.buffer.kind
        )
        self.emit("copy", place, operand)
        return place

    def run(
        self, nodes: Iterable[Node], env: dict[int, Operand], homes: Mapping[int, View]
    ) -> None:
        """Convert the operations ``nodes`` to instructions, in order. ``homes`` maps some values to
        the views into which they must be written."""
        nodes = tuple(nodes)
        homes = find_homes(nodes, homes, self.new)
        for node in nodes:
            if node.op == "scan":
                self._scan(node, env)
            elif node.op == "constant":
                env[node.output] = Constant(self._rounded(node.attributes["value"]))
            elif node.op == "extent":
                counts = [dim.resolve(self.plan.sizes) for dim in node.attributes["dims"]]
                env[node.output] = Constant(self._rounded(float(prod(counts))))
            else:
                inputs = [env[i] for i in node.inputs]
                env[node.output] = self._node(node, inputs, homes.get(node.output))

    def new(self, value: int, *leading: int) -> View:
        """Return a new view for a value. With ``leading``, the view has additional first axes of
        these lengths, e.g. for the values of all time steps."""
        return fresh((*leading, *self.plan.shape(value)), self.plan.types[value].kind)

    def _node(self, node: Node, inputs: list[Operand], home: View | None) -> Operand:
        attributes = {n: resolved(v, self.plan.sizes) for n, v in node.attributes.items()}
        shape = self.plan.shape(node.output)
        if node.op in VIEWS:
            return apply_view(node.op, inputs[0], attributes)
        if node.op in FOLDED and all(isinstance(i, Constant) for i in inputs):
            return self._fold(node.op, inputs, shape)
        kind = self.plan.types[node.output].kind
        if node.op in RULES:
            return RULES[node.op](Work(self, inputs, attributes, shape, kind, home))
        return elementwise(self, node.op, inputs, attributes, home or shape, kind)

    def _fold(self, op: str, inputs: Iterable[Operand], shape: tuple[int, ...]) -> Constant:
        type_ = np.dtype(self.plan.dtype).type
        numbers = [type_(i.number) for i in inputs if isinstance(i, Constant)]
        with np.errstate(all="ignore"):
            return Constant(float(getattr(np, op)(*numbers)), shape)

    def _rounded(self, number: float) -> float:
        return float(np.dtype(self.plan.dtype).type(number))

    def _scan(self, node: Node, env: dict[int, Operand]) -> None:
        body, count = node.block, node.carries
        carries = [env[i] for i in node.inputs[:count]]
        sequences = [env[i] for i in node.inputs[count:]]
        reverse = node.reverse
        length = self.plan.shape(node.inputs[count])[0]
        stacks = _Stacks(self, body, count, length, reverse)
        for place, index in stacks.starts:
            self.copy_to(place, carries[index])
            carries[index] = place
        for time in range(length - 1, -1, -1) if reverse else range(length):
            inner = dict(env)
            slices = [_row(sequence, time) for sequence in sequences]
            inner.update(zip(body.inputs, [*carries, *slices], strict=True))
            self.run(body.nodes, inner, stacks.homes(time))
            for value, stack in stacks.views.items():
                self.copy_to(stack.row(time), inner[value])
            carries = [inner[value] for value in body.outputs[:count]]
        env.update(zip(node.outputs[:count], carries, strict=True))
        stacked = (stacks.views[value] for value in body.outputs[count:])
        env.update(zip(node.outputs[count:], stacked, strict=True))


def _row(sequence: Operand, time: int) -> Operand:
    if isinstance(sequence, Constant):
        return Constant(sequence.number, sequence.shape[1:])
    return sequence.row(time)


class _Stacks:
    """The memory of the results in which a loop stacks the values of all time steps.

    A loop may stack a carried value (e.g. a state) both as it is before each step and as it is
    after each step. Then a single stack with ``length + 1`` rows holds the initial value and the
    value after each step, and the two results are views of this stack.
    """

    def __init__(
        self, flattener: Flattener, body: Block, count: int, length: int, reverse: bool
    ) -> None:
        self.views: dict[int, View] = {}
        self.starts: list[tuple[View, int]] = []
        self._homes: dict[int, View] = {}
        stacked = set(body.outputs[count:])
        made = {o for inner in body.nodes for o in inner.outputs}
        for index, (entering, leaving) in enumerate(
            zip(body.inputs[:count], body.outputs[:count], strict=True)
        ):
            if entering in stacked and leaving in made and leaving not in self._homes:
                track = flattener.new(entering, length + 1)
                early, late = track.narrow(0, 0, length), track.narrow(0, 1, length + 1)
                self.views[entering] = late if reverse else early
                self._homes[leaving] = early if reverse else late
                self.starts.append((track.row(length if reverse else 0), index))
        for value in body.outputs[count:]:
            if value in self._homes:
                self.views[value] = self._homes[value]
            elif value not in self.views:
                self.views[value] = flattener.new(value, length)
                if value in made:
                    self._homes[value] = self.views[value]

    def homes(self, time: int) -> dict[int, View]:
        return {value: view.row(time) for value, view in self._homes.items()}
