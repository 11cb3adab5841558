"""Reverse-mode differentiation of a program; the result consists of the same primitives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.program.autodiff.reverse import MOVES, Reverse, active_values, hoist
from harness.program.autodiff.rules import RULES
from harness.program.builder import Builder
from harness.program.ir import Port, Program, inline_calls, needed_nodes


@dataclass(frozen=True)
class Derivative:
    """A program that also computes gradients.

    ``seeds`` are additional inputs of the program: one cotangent for each differentiated output
    (the gradient that flows into the backward pass). ``gradients`` are additional outputs: one
    gradient for each item of ``against`` in :func:`differentiate`, in the same order.
    """

    program: Program
    seeds: tuple[Port, ...]
    gradients: tuple[Port, ...]


def differentiate(
    program: Program,
    outputs: Sequence[Port],
    against: Sequence[Port],
    keep: Iterable[int] = (),
    fused: Iterable[str] = (),
    recomputes: bool = False,
) -> Derivative:
    """Return the program extended by a backward pass: it computes the gradients of the values
    ``against``, given the cotangents of ``outputs`` (the gradients that flow into them).

    If no output depends on a value in ``against``, the gradient of this value is all zeros. The
    result has only the nodes on which the outputs, the gradients or the values in ``keep`` depend.
    ``keep`` has value numbers (indices of values in the program). ``fused`` names the fused
    operations, e.g. ``relu_gradient``, that the backward pass may use. With ``recomputes``, the
    backward pass computes windows and views of values again, to save memory.
    """
    builder = Builder(dict(program.types), dict(program.names))
    results = [*(port.value for port in outputs), *keep]
    forward = list(hoist(needed_nodes(inline_calls(program.nodes), results)))
    live = active_values(forward, {p.value for p in against})
    recomputed = MOVES if recomputes else frozenset[str]()
    reverse = Reverse(builder, forward, live, RULES, frozenset(fused), recomputed)
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
    nodes = needed_nodes([*forward, *builder.nodes], [*results, *(p.value for p in gradients)])
    derived = replace(program, nodes=nodes, types=builder.types, names=builder.names)
    return Derivative(derived, tuple(seeds), gradients)
