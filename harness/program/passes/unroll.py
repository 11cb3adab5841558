"""Loop unrolling, and rules that simplify the first step if the initial state is zeros."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import prod
from typing import Any

from harness.program.builder import Builder
from harness.program.dims import ONE, Attributes, Dim
from harness.program.flops import steps_of
from harness.program.ir import Node, Type
from harness.program.passes.algebra import common_shape
from harness.program.passes.rebuild import renumber
from harness.program.passes.rewriter import Rewriter, Rule

# The largest number of steps of a loop that is unrolled. The second limit is for training with a
# compiler that fuses operations (XLA): it fuses operations of different unrolled steps and
# recomputes values that several steps read. An LSTM of 24 steps then trains at half its speed.
LONGEST, LONGEST_FUSED = 32, 8
# If a loop carries this many numbers (2 MiB in float32), the values of a step do not fit in cache.
LARGE = 1 << 19


def unrolled(
    nodes: Iterable[Node],
    builder: Builder,
    sizes: Mapping[str, int],
    longest: int,
    *,
    every: bool = True,
) -> tuple[Node, ...]:
    """Unroll loops of at most ``longest`` steps, and replace all symbolic sizes by numbers. If
    ``every`` is false, do not unroll loops that carry at least :data:`LARGE` numbers from step to
    step."""
    nodes = _with_numbers(nodes, sizes)
    numbered: dict[int, tuple[Type, Type]] = {}  # by id; the value keeps the object alive
    for value, type_ in builder.types.items():
        if id(type_) not in numbered:
            shape, bound = (_number(x, sizes) for x in (type_.shape, type_.bound))
            numbered[id(type_)] = type_, Type(shape, type_.kind, bound)
        builder.types[value] = numbered[id(type_)][1]
    result: list[Node] = []
    for node in nodes:
        short = node.op == "scan" and steps_of(node, builder.types, sizes) <= longest
        if short and (every or not carries_much([node], builder, sizes)):
            result += _UnrolledSteps(node, builder).unroll(steps_of(node, builder.types, sizes))
        else:
            result.append(node)
    return tuple(result)


def carries_much(nodes: Iterable[Node], builder: Builder, sizes: Mapping[str, int]) -> bool:
    """Return whether any loop carries at least :data:`LARGE` numbers (array entries) from step to
    step."""

    def carried(loop: Node) -> int:
        values = loop.inputs[: loop.carries]
        return sum(prod(d.resolve(sizes) for d in builder.types[v].shape) for v in values)

    return any(node.op == "scan" and carried(node) >= LARGE for node in nodes)


def _with_numbers(nodes: Iterable[Node], sizes: Mapping[str, int]) -> tuple[Node, ...]:
    result = []
    for node in nodes:
        body = node.body
        if body is not None:
            body = replace(body, nodes=_with_numbers(body.nodes, sizes))
        if node.attributes:
            attributes = {name: _number(value, sizes) for name, value in node.attributes.items()}
            if body is not None or attributes != node.attributes:
                node = replace(node, attributes=attributes, body=body)
        result.append(node)
    return tuple(result)


def _number(value: Any, sizes: Mapping[str, int]) -> Any:
    """Replace size names by numbers if ``value`` is a dimension or a tuple of dimensions; return
    other values unchanged."""
    if isinstance(value, Dim):
        return _shared_dim(value.resolve(sizes))
    if isinstance(value, tuple):
        return tuple(_number(item, sizes) for item in value)
    return value


@cache
def _shared_dim(number: int) -> Dim:
    """Return a dimension that is a plain number. Equal numbers give the same object, because shapes
    with identical objects are compared faster."""
    return Dim(number)


def _defined(nodes: Iterable[Node]) -> Iterator[int]:
    """Yield the numbers of the values that nodes compute, also inside the bodies of loops and
    calls, in order."""
    for node in nodes:
        if node.body is not None:
            yield from node.body.inputs
            yield from _defined(node.body.nodes)
        yield from node.outputs


class _UnrolledSteps:
    """The nodes that replace a loop: a copy of its body for each step."""

    def __init__(self, node: Node, builder: Builder) -> None:
        self.node, self.body, self.builder = node, node.block, builder
        self.nodes: list[Node] = []

    def unroll(self, steps: int) -> list[Node]:
        count = self.node.carries
        carried = self.node.inputs[:count]
        rows: dict[int, Sequence[int]] = {}
        order = range(steps)
        for step in reversed(order) if self.node.reverse else order:
            outputs = self._step(step, carried)
            carried, rows[step] = outputs[:count], outputs[count:]
        for value, last in zip(self.node.outputs, carried, strict=False):
            axes = tuple(range(len(self.builder.types[last].shape)))
            self.nodes.append(Node("permute_dims", (last,), (value,), {"axes": axes}))
        columns = zip(*(rows[step] for step in order), strict=True)
        for value, column in zip(self.node.outputs[count:], columns, strict=True):
            wide = [self._with_leading_axis(row) for row in column]
            self.nodes.append(Node("concat", tuple(wide), (value,), {"axis": 0}))
        return self.nodes

    def _step(self, step: int, carried: Sequence[int]) -> tuple[int, ...]:
        count = len(carried)
        slices = [self._slice(sequence, step) for sequence in self.node.inputs[count:]]
        numbers = dict(zip(self.body.inputs, (*carried, *slices), strict=True))
        types = self.builder.types
        numbers |= {value: self.builder.value(types[value]) for value in _defined(self.body.nodes)}
        self.nodes += renumber(self.body.nodes, numbers)
        return tuple(numbers.get(v, v) for v in self.body.outputs)

    def _slice(self, sequence: int, step: int) -> int:
        type_ = self.builder.types[sequence]
        attributes = {"axis": 0, "start": Dim(step), "stop": Dim(step + 1)}
        row = self.builder.value(replace(type_, shape=(ONE, *type_.shape[1:])))
        value = self.builder.value(replace(type_, shape=type_.shape[1:]))
        self.nodes.append(Node("slice", (sequence,), (row,), attributes))
        self.nodes.append(Node("squeeze", (row,), (value,), {"axis": 0}))
        return value

    def _with_leading_axis(self, value: int) -> int:
        type_ = self.builder.types[value]
        wide = self.builder.value(Type((ONE, *type_.shape), type_.kind, type_.bound))
        self.nodes.append(Node("expand_dims", (value,), (wide,), {"axis": 0}))
        return wide


def _zero_product(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Rewrite the matrix product of an initial state of zeros and a weight U: ``0 @ U -> 0``. This
    is correct only if U is finite."""
    a, b = inputs
    if g.number(a) != 0 or g.rank(a) != 2 or g.rank(b) != 2:
        return None
    return g.full(0.0, (g.shape(a)[0], g.shape(b)[1]))


def _zeros(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Rewrite the product of a gate z and an initial state of zeros: ``z * 0 -> 0``. This is
    correct only if z is finite."""
    if not any(g.number(i) == 0 for i in inputs):
        return None
    return g.full(0.0, common_shape(g, inputs))


def _drop_zero_rows(g: Rewriter, inputs: tuple[int, ...], attributes: Attributes) -> int | None:
    """Rewrite a product over all steps whose first row is an initial state of zeros: ``[0; h].T @
    [a; b] -> h.T @ b``."""
    left, right = inputs
    concat = g.node(left, "concat")
    if concat is None or concat.attributes["axis"] != 0 or g.number(concat.inputs[0]) != 0:
        return None
    if any(0 not in axes for axes in attributes["axes"]) or len(concat.inputs) < 2:
        return None
    nonzero = g.emit("concat", *concat.inputs[1:], axis=0)
    count, length = g.shape(concat.inputs[0])[0], g.shape(right)[0]
    later = g.emit("slice", right, axis=0, start=count, stop=length)
    return g.emit("tensordot", nonzero, later, **attributes)


RULES: Mapping[str, Sequence[Rule]] = {
    "matmul": (_zero_product,),
    "multiply": (_zeros,),
    "tensordot": (_drop_zero_rows,),
}
