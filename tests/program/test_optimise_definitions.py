"""The passes keep the values of every layer, function and loss, and of its gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from fused_reference import REFERENCE
from golden.tiny import draw, draw_cotangents, environment, tiny

from harness.backends.numpy.primitives import PRIMITIVES
from harness.language.library import Library
from harness.program.autodiff.differentiate import differentiate
from harness.program.builder import Builder
from harness.program.fused import FUSED
from harness.program.ir import Node, inline_calls, walk_nodes
from harness.program.passes import optimise
from harness.runtime.interpreter import Interpreter

DEFINITIONS = [(kind, n) for kind in ("layer", "function", "loss") for n in Library().names(kind)]


@pytest.mark.parametrize("fused", [(), tuple(FUSED)], ids=["primitives", "all"])
@pytest.mark.parametrize("time", [5, 36])
@pytest.mark.parametrize(("kind", "name"), DEFINITIONS)
def test_a_definition_keeps_its_values(
    kind: str, name: str, time: int, fused: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golden.tiny.FREE", {"batch": 3, "time": time})
    case = tiny(kind, name)
    if time > 5 and case.program.room:
        pytest.skip("its sequence may be as long as its table, and no longer")
    sizes, against = case.sizes, list(case.against.values())
    outputs = [port.value for port in case.outputs]
    env = environment(case, draw(case, 5))
    cotangents = draw_cotangents(case, 5)

    plain = differentiate(case.program, case.outputs, against)
    seeded = {p.value: cotangents[p.name] for p in plain.seeds}
    found = Interpreter(PRIMITIVES, sizes, "float64", np.float64).run(
        plain.program.nodes, {**env, **seeded}
    )
    expected = [found[v] for v in (*outputs, *(p.value for p in plain.gradients))]

    builder = Builder(dict(case.program.types))
    nodes = inline_calls(case.program.nodes)
    nodes = optimise(nodes, outputs, builder, sizes, fused, final=False)
    program = replace(case.program, nodes=nodes, types=builder.types)
    derived = differentiate(program, case.outputs, against, fused=fused)
    builder = Builder(dict(derived.program.types))
    wanted = [*outputs, *(p.value for p in derived.gradients)]
    nodes = optimise(derived.program.nodes, wanted, builder, sizes, fused)
    table = {**PRIMITIVES, **{op: REFERENCE[op] for op in fused}}
    assert {node.op for node in walk_nodes(nodes)} <= {*table, "constant", "scan"}
    seeded = {p.value: cotangents[p.name] for p in derived.seeds}
    found = Interpreter(table, sizes, "float64", np.float64).run(nodes, {**env, **seeded})
    for value, array in zip(wanted, expected, strict=True):
        np.testing.assert_allclose(found[value], array, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("kind", "name"), DEFINITIONS)
def test_a_definition_keeps_its_values_where_its_loops_stay(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.program.passes.unroll.LARGE", 1)
    case = tiny(kind, name)
    outputs = [port.value for port in case.outputs]
    nodes = inline_calls(case.program.nodes)
    builder = Builder(dict(case.program.types))
    stayed = optimise(nodes, outputs, builder, case.sizes, (), moved=False)
    assert loops(stayed) == loops(nodes)
    env = environment(case, draw(case, 5))
    walker = Interpreter(PRIMITIVES, case.sizes, "float64", np.float64)
    before, after = (walker.run(some, dict(env)) for some in (nodes, stayed))
    for value in outputs:
        np.testing.assert_allclose(after[value], before[value], rtol=1e-12, atol=1e-13)


def loops(nodes: Iterable[Node]) -> int:
    return sum(node.op == "scan" for node in nodes)
