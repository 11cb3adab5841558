"""The values of shipped functions of one number, such as ``gelu``, to recognise their equations."""

from __future__ import annotations

from functools import cache

from harness.arrays import Array
from harness.oracle.oracle import run
from harness.program.ir import Node, needed_nodes

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
    return {name: elementwise_value(name, points) for name in elementwise_names()}


def elementwise_value(name: str, points: Array) -> Array:
    """Return the values of one function; see :func:`elementwise_values`."""
    x, nodes, result = _equations()[name]
    return run(nodes, {x: points}, {"batch": len(points)}, ends=[result])[result]


@cache
def _equations() -> dict[str, tuple[int, tuple[Node, ...], int]]:
    """Return for each function the number of its input, its nodes, and the number of its result."""
    from harness.language.model import load_spec

    names = elementwise_names()
    text = TEXT.format(
        name=NAME,
        equations="\n".join(f"  y_{n} = {n}(x)" for n in names),
        outputs=", ".join(f"y_{n}" for n in names),
    )
    program = load_spec(NAME, overrides={("model", NAME): text}).program("inference")
    x = program.inputs[0].value
    results = {port.name.removeprefix("y_"): port.value for port in program.outputs}
    return {n: (x, needed_nodes(program.nodes, [v]), v) for n, v in results.items()}
