"""A call that a backend has claimed, as the interpreter runs it."""

from __future__ import annotations

from harness.program.ir import Node
from harness.runtime import promises
from harness.runtime.interpreter import Claimed, Line, Values
from harness.runtime.native import Native

# Where claimed calls find the variables, among values that have numbers from 0.
VARIABLES = -1


def claimed_call(key: str, native: Native) -> Claimed:
    """Makes the line of a claimed call."""
    names = [(name, f"{key}/{name}") for name in native.packing.pieces]

    def claimed(node: Node) -> Line:
        roles = tuple(zip(node.attributes["roles"], node.inputs, strict=True))

        def line(values: Values) -> None:
            variables = values[VARIABLES]
            given = {role: values[i] for role, i in roles if i in values}
            made = native.run(given, {name: variables[full] for name, full in names})
            try:
                values.update(zip(node.outputs, made, strict=True))
            except (TypeError, ValueError):
                promises.each(made, node.outputs, native.label)
                raise

        return line

    return claimed
