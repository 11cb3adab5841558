"""Differentiate a program in reverse mode; the result is again nodes in the same primitives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.program.autodiff.reverse import Reverse, active_values, hoist
from harness.program.autodiff.rules import RULES
from harness.program.builder import Builder
from harness.program.ir import Port, Program, inline_calls, needed_nodes


@dataclass(frozen=True)
class Derivative:
    """A program with its gradient appended.

    ``seeds`` are the cotangents that come in, one for each differentiated output. ``gradients`` go
    out, one for each value differentiated against, in the order asked for.
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
) -> Derivative:
    """Return the vector-Jacobian product of ``outputs`` with respect to ``against``.

    If no output depends on a value, its gradient is zeros of its shape. Nodes that neither the
    outputs, the gradients nor the values in ``keep`` need are left out. ``fused`` names the fused
    operations that the backward pass may use.
    """
    builder = Builder(dict(program.types), dict(program.names))
    wanted = [*(port.value for port in outputs), *keep]
    forward = list(hoist(needed_nodes(inline_calls(program.nodes), wanted)))
    live = active_values(forward, {p.value for p in against})
    reverse = Reverse(builder, forward, live, RULES, frozenset(fused))
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
