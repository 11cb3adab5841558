"""A loss for a program that has none, so that its derivatives can be asked for."""

from __future__ import annotations

from dataclasses import replace

from harness.program.builder import Builder
from harness.program.ir import Program


def with_loss(program: Program) -> Program:
    """The program; one without a loss gets the mean of the squares of each output, added up.

    Indices and conditions count as floats, through which no derivative flows.
    """
    if program.loss is not None:
        return program
    builder = Builder(dict(program.types), dict(program.names), list(program.nodes))
    total = builder.constant(0.0)
    for port in program.outputs:
        value, type_ = port.value, program.type_of(port)
        if type_.kind != "float":
            value = builder.emit("astype", value)
        square = builder.emit("multiply", value, value)
        if type_.shape:
            square = builder.mean(square, range(len(type_.shape)), keepdims=False)
        total = builder.emit("add", total, square)
    return replace(program, types=builder.types, nodes=tuple(builder.nodes), loss=total)
