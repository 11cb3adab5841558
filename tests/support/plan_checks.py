"""Checks of plans: results equal the oracle's, and each rewrite reduces the termination measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import measure
import numpy as np
import pytest
from fused_reference import REFERENCE
from hypothesis import assume, currently_in_test_context

from harness.backends.numpy.fused import FUSED as NUMPYS
from harness.backends.numpy.primitives import PRIMITIVES
from harness.language.model import Spec, load_spec
from harness.oracle import oracle
from harness.program.autodiff.differentiate import differentiate
from harness.program.fused import FUSED
from harness.program.ir import Node, Port, Program, walk_nodes
from harness.program.passes import unroll
from harness.program.passes.rewriter import Rewriter
from harness.program.plan import Plan, forward_plan, training_plan
from harness.program.signature import crossing_ports, result_ports
from harness.runtime.interpreter import Interpreter

Arrays = dict[str, Any]
Sizes = Mapping[str, int]


def load_text(text: str) -> Spec:
    return load_spec("random", overrides={("model", "random"): text})


def draw_arrays(program: Program, sizes: Sizes) -> Arrays:
    """Return random arrays by name for all inputs, parameters and states."""
    generator, found = np.random.default_rng(7), {}
    for prefix, port in crossing_ports(program):
        type_ = program.type_of(port)
        shape = tuple(d.resolve(sizes) for d in type_.shape)
        if type_.bound is not None:
            found[prefix + port.name] = generator.integers(0, type_.bound.resolve(sizes), shape)
        else:
            array = generator.normal(size=shape)
            found[prefix + port.name] = (
                np.abs(array) + 0.5 if port.name.endswith("variance") else array
            )
    return found


class Gaps:
    """Comparison primitives of the oracle that record the smallest gap between compared values."""

    def __init__(self) -> None:
        self.least = np.inf
        self.table = {**oracle.TABLE, **{op: self._seen(op) for op in ("less", "less_equal")}}

    def _seen(self, op: str) -> Any:
        def compare(a: Any, b: Any) -> Any:
            self.least = min(self.least, np.min(np.abs(a - b), initial=np.inf))
            return oracle.TABLE[op](a, b)

        return compare


def run(nodes: Iterable[Node], env: Mapping[int, Any], sizes: Sizes, table: Any) -> dict[int, Any]:
    walker = Interpreter(table, sizes, "float64", np.float64)
    with np.errstate(all="ignore"):
        return walker.run(tuple(nodes), dict(env))


def expected(program: Program, arrays: Arrays, sizes: Sizes) -> Arrays:
    """Return the results and gradients of the program as written.

    Reject an example if a tiny change of its values would change a comparison.
    """
    assert program.loss is not None
    results = result_ports(program, "loss")
    loss, against = Port("loss", program.loss), program.parameters
    derived = differentiate(program, [loss], against, results.values())
    env = {p.value: arrays[prefix + p.name] for prefix, p in crossing_ports(program)}
    env[derived.seeds[0].value] = np.float64(1)
    gaps = Gaps()
    found = run(derived.program.nodes, env, sizes, gaps.table)
    result = {name: found[value] for name, value in results.items()}
    result |= {f"gradient.{g.name}": found[g.value] for g in derived.gradients}
    large = any(not np.all(np.abs(a) < 1e6) for a in result.values())
    decided = gaps.least > 1e-6 and not large
    if currently_in_test_context():
        assume(decided)
    assert decided
    return result


def run_plan(plan: Plan, arrays: Arrays) -> Arrays:
    given = {
        v: np.transpose(arrays[n], plan.orders.get(n, range(np.ndim(arrays[n]))))
        for n, v in plan.inputs.items()
    }
    env = run(plan.nodes, given, plan.sizes, {**PRIMITIVES, **REFERENCE})
    return {name: env[value] for name, value in plan.outputs.items()}


def assert_equal(found: Arrays, wanted: Arrays) -> None:
    scale = max(1.0, *(float(np.max(np.abs(a), initial=0.0)) for a in wanted.values()))
    for name, array in wanted.items():
        assert np.shape(found[name]) == np.shape(array), name
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-11 * scale, err_msg=name)


def assert_small(plan: Plan, before: Sequence[Node], steps: int) -> None:
    """Assert that a plan is not much larger than the program with unrolled loops."""
    count = sum(1 for _ in walk_nodes(before))
    written = steps if steps <= unroll.LONGEST else 1
    assert sum(1 for _ in walk_nodes(plan.nodes)) <= 40 + 3 * count * max(written, 1)


class RewriteObserver:
    """An observer that asserts for every rewrite that it makes the measure smaller."""

    def __init__(self) -> None:
        self.deepest = 0
        self.stack: list[Any] = []
        self.plain = Rewriter._rewritten

    def rewritten(self, g: Rewriter, key: Any, *request: Any) -> int | None:
        before = len(g.made)
        self.stack.append(request)
        found = self.plain(g, key, *request)
        self.stack.pop()
        if self.stack and (found is not None or len(g.made) > before):
            self.deepest = max(self.deepest, len(self.stack))
            outer = self.stack[-1]
            own, whole = (measure.of(g, r, outer[1]) for r in (request, outer))
            assert own < whole, f"{request} for {outer}: {own} after {whole}"
        return found


@contextmanager
def watch_rewrites() -> Iterator[RewriteObserver]:
    found = RewriteObserver()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rewriter, "_rewritten", lambda *given: found.rewritten(*given))
        yield found


def check_plans(text: str, sizes: Sizes, fused: Iterable[str]) -> None:
    """Assert that all plans of a model compute its values, and are not much larger than the
    model."""
    spec = load_text(text)
    training, inference = spec.program("training"), spec.program("inference")
    assert spec.update is not None
    sizes = {**training.sizes, **sizes}
    arrays = draw_arrays(training, sizes)
    wanted = expected(training, arrays, sizes)
    plan = training_plan(training, spec.update, sizes, "float64", fused, learning_rate=0.125)
    for port in training.parameters:
        wanted[port.name] = arrays[port.name] - 0.125 * wanted.pop(f"gradient.{port.name}")
    found = run_plan(plan, {**arrays, "step": np.float64(1)})
    assert_equal(found, {name: wanted[name] for name in plan.outputs if name != "step"})
    assert_small(plan, training.nodes, sizes["time"])
    env = {p.value: arrays[prefix + p.name] for prefix, p in crossing_ports(inference)}
    values = run(inference.nodes, env, sizes, oracle.TABLE)
    for moved in (True, False):
        plan = forward_plan(inference, sizes, "float64", fused, moved=moved)
        assert_equal(run_plan(plan, arrays), {name: values[v] for name, v in plan.outputs.items()})
        assert_small(plan, inference.nodes, sizes["time"])


SETS = {"primitives": (), "numpy": tuple(NUMPYS), "all": tuple(FUSED)}
