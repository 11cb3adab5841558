"""Loss scaling of a session in float16, where its steps are walked: see
:mod:`harness.program.scaling`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Type
from harness.program.scaling import FIRST, GOOD, SCALE, guarded
from harness.runtime.interpreter import Interpreter, Table, perform
from harness.runtime.native import Function, GradientFunction, Tensors
from harness.runtime.updates import STEP


def begun(scalar: Callable[[float], Any]) -> Tensors:
    """What is carried from step to step, before the first."""
    return {SCALE: scalar(FIRST), GOOD: scalar(0.0)}


def scaled(function: Function, table: Table) -> Function:
    """A function with its ``scalar`` multiplied by the scale, which is among its constants."""

    def run(variables: Tensors, constants: Tensors) -> Tensors:
        results = function(variables, constants)
        scalar = perform(table, "multiply", [results["scalar"], constants[SCALE]])
        return {**results, "scalar": scalar}

    return run


def unscaled(function: GradientFunction, table: Table) -> GradientFunction:
    """The gradient of what was scaled, divided by the scale."""

    def run(variables: Tensors, constants: Tensors) -> tuple[Tensors, Tensors]:
        results, gradients = function(variables, constants)
        scale = constants[SCALE]
        return results, {n: perform(table, "divide", [g, scale]) for n, g in gradients.items()}

    return run


def left_by(
    interpreter: Interpreter, gradients: Tensors, before: Tensors, made: Tensors
) -> tuple[Tensors, Tensors]:
    """What a step leaves of what it has ``made``, the number of the next step among it; and what
    :func:`begun` has: see :func:`harness.program.scaling.guarded`."""
    builder, values = Builder(), {}

    def numbered(tensors: Tensors) -> dict[str, int]:
        found = {}
        for name, tensor in tensors.items():
            found[name] = builder.value(Type(tuple(map(Dim.of, tensor.shape))))
            values[found[name]] = tensor
        return found

    given = numbered(before)
    after = numbered(made) | {STEP: builder.emit("add", given[STEP], builder.constant(1.0))}
    ports = guarded(builder, numbered(gradients), given, after)
    interpreter.run(builder.nodes, values)
    found = {name: values[value] for name, value in ports.items()}
    return found, {name: found.pop(name) for name in (SCALE, GOOD)}
