"""A program whose gradients show on the way, and can be put right there.

A tap is an input of zeros that is added to a value: its gradient is the value's own. Where a value
is cut, no gradient passes it backwards; one that is given takes the place of it:
``y -> stop_gradient(y) + tap``, and ``sum(y * pull)`` is added to the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.arrays import Array, ArrayDict
from harness.program.builder import Builder
from harness.program.dims import bind
from harness.program.ir import Node, Port, Program
from harness.program.signature import noise_ports
from harness.runtime.arguments import Arguments

TAP, PULL, ALONG = "tap.", "pull.", "along."


@dataclass(frozen=True)
class Tapped:
    """The program, and the value behind each tap by the tap's name."""

    program: Program
    taps: Mapping[str, int]
    names: Mapping[int, str]

    def arguments(
        self, material: Arguments, pulls: Mapping[str, Array], along: Mapping[str, Array]
    ) -> Arguments:
        """A batch of it: zeros for taps, gradients of cut values, a direction of the results."""
        bound = _sizes(self.program, material)
        inputs = dict(material.inputs)
        for port in self.program.inputs:
            if port.name in inputs:
                continue
            prefix, _, name = port.name.partition(".")
            given = {"pull": pulls, "along": along}.get(prefix, {})
            shape = self.program.shape(port, bound)
            inputs[port.name] = given.get(name, np.zeros(shape))
        return replace(material, inputs=inputs)


def tapped(program: Program, cut: Collection[str] = ()) -> Tapped:
    """A program with a tap at every float value outside of loops, the values in ``cut`` cut."""
    assert program.loss is not None
    builder = Builder(dict(program.types), dict(program.names))
    moved: dict[int, int] = {}
    inputs: list[Port] = []
    taps: dict[str, int] = {}
    loss: list[int] = []
    for node in program.nodes:
        builder.append(_renamed(node, moved.get))
        builder.place = node.place
        for value in node.outputs:
            type_ = program.types[value]
            if type_.kind != "float" or value == program.loss or node.op in ("constant", "extent"):
                continue
            name = program.names.get(value) or f"value {value}"
            taps[name] = value
            tap = builder.value(type_)
            inputs.append(Port(f"{TAP}{name}", tap))
            passed = value
            if name in cut:
                pull = builder.value(type_)
                inputs.append(Port(f"{PULL}{name}", pull))
                loss.append(_inner(builder, value, pull))
                passed = builder.emit("stop_gradient", value)
            moved[value] = builder.emit("add", passed, tap)
    for prefix, ports in (("output.", program.outputs), ("state.", program.new_state)):
        for port in ports:
            value = moved.get(port.value, port.value)
            if builder.types[value].kind == "float":
                direction = builder.value(builder.types[value])
                inputs.append(Port(f"{ALONG}{prefix}{port.name}", direction))
                loss.append(_inner(builder, value, direction))
    total = program.loss
    for term in loss:
        total = builder.emit("add", total, term)
    made = replace(
        program,
        types=builder.types,
        names=builder.names,
        nodes=tuple(builder.nodes),
        inputs=(*program.inputs, *inputs),
        outputs=_ports(program.outputs, moved),
        new_state=_ports(program.new_state, moved),
        new_statistics=_ports(program.new_statistics, moved),
        metrics=_ports(program.metrics, moved),
        loss=total,
    )
    return Tapped(made, taps, {value: name for name, value in taps.items()})


def untapped(program: Program, like: Tapped) -> Program:
    """The program of inference with the same inputs, which it does not use."""
    builder = Builder(dict(program.types), dict(program.names))
    known = {port.name for port in (*program.inputs, *noise_ports(like.program))}
    extra = [
        Port(port.name, builder.value(like.program.type_of(port)))
        for port in like.program.inputs
        if port.name not in known
    ]
    return replace(program, types=builder.types, inputs=(*program.inputs, *extra))


def _inner(builder: Builder, one: int, other: int) -> int:
    product = builder.emit("multiply", one, other)
    axes = tuple(range(len(builder.types[product].shape)))
    return builder.emit("sum", product, axis=axes, keepdims=False) if axes else product


def _ports(ports: Iterable[Port], moved: Mapping[int, int]) -> tuple[Port, ...]:
    return tuple(replace(port, value=moved.get(port.value, port.value)) for port in ports)


def _renamed(node: Node, moved: Callable[[int, int], int]) -> Node:
    """A node, its body included, that reads other values."""
    inputs = tuple(moved(value, value) for value in node.inputs)
    body = node.body
    if body is not None:
        body = replace(
            body,
            nodes=tuple(_renamed(inner, moved) for inner in body.nodes),
            outputs=tuple(moved(value, value) for value in body.outputs),
        )
    return replace(node, inputs=inputs, body=body)


def _sizes(program: Program, material: Arguments) -> dict[str, int]:
    """The sizes that the arrays of a batch decide."""
    found: dict[str, int] = {}
    for group in ("inputs", "state", "targets"):
        ports: Sequence[Port] = getattr(program, group)
        arrays: ArrayDict = getattr(material, group)
        for port in ports:
            if port.name in arrays:
                shape = program.type_of(port).shape
                bind(port.name, shape, arrays[port.name].shape, program.sizes, found)
    return found
