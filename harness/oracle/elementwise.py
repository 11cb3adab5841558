"""The values of shipped functions of one number, such as ``gelu``, to recognise their equations."""

from __future__ import annotations

from functools import cache

from harness.arrays import Array
from harness.oracle.oracle import run
from harness.program.ir import Program

# A model that only calls the functions.
NAME = "elementwise_functions"
TEXT = """\
model: {name}
summary: All shipped functions of one number.
source: specs/functions
inputs: {{x: {{shape: [batch]}}}}
equations: |
{equations}
outputs: [{outputs}]
"""
# These functions return their input, so they have no equations that could be recognised.
UNCHANGED = frozenset({"linear"})


@cache
def elementwise_names() -> tuple[str, ...]:
    """Return the names of the shipped functions that compute each entry from one entry."""
    # Slow imports, which a worker needs only to trace a model.
    from harness.language.library import Library, content
    from harness.language.schema import Function

    library = Library()
    functions = {
        n: content(library.find("function", n), Function) for n in library.names("function")
    }
    names = [n for n, f in functions.items() if [*f.inputs.values()] == [["..."]]]
    return tuple(n for n in names if n not in UNCHANGED)


def elementwise_values(points: Array) -> dict[str, Array]:
    """Return the float64 values of each shipped function of one number at these points, by name.
    Attributes such as the slope of ``leaky_relu`` have their defaults."""
    program = _program()
    values = run(program.nodes, {program.inputs[0].value: points}, {"batch": len(points)})
    outputs = {port.name: values[port.value] for port in program.outputs}
    return {name: outputs[f"y_{name}"] for name in elementwise_names()}


@cache
def _program() -> Program:
    from harness.language.model import load_spec

    names = elementwise_names()
    text = TEXT.format(
        name=NAME,
        equations="\n".join(f"  y_{n} = {n}(x)" for n in names),
        outputs=", ".join(f"y_{n}" for n in names),
    )
    return load_spec(NAME, overrides={("model", NAME): text}).program("inference")
