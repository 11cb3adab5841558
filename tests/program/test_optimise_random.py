"""Whatever a spec composes: the passes end, keep the values, and leave no more to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import measure
import numpy as np
import pytest
from fused_reference import REFERENCE
from hypothesis import HealthCheck, assume, currently_in_test_context, given, settings
from random_models import models

from harness.backends.numpy.backend import PRIMITIVES
from harness.backends.numpy.fused import FUSED as NUMPYS
from harness.oracle import oracle
from harness.program.autodiff.differentiate import differentiate
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.fused import FUSED
from harness.program.ir import Node, Port, Program, Type, walk_nodes
from harness.program.passes import unroll
from harness.program.passes.rebuild import rebuild
from harness.program.passes.rewriter import DEEPEST, MOST, Rewriter
from harness.program.plan import Plan, forward_plan, training_plan
from harness.program.signature import crossing_ports, result_ports
from harness.runtime.interpreter import Interpreter
from harness.spec.library import lesson6
from harness.spec.model import Spec, load_spec

MANY = int(os.environ.get("HARNESS_RANDOM_MODELS", "60"))
random_models = settings(
    max_examples=MANY,
    deadline=None,
    derandomize="HARNESS_RANDOM_MODELS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
Arrays = dict[str, Any]
Sizes = Mapping[str, int]


def loaded(text: str) -> Spec:
    return load_spec("random", overrides={("model", "random"): text})


def drawn(program: Program, sizes: Sizes) -> Arrays:
    """Arrays by name; whatever comes in."""
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
    """The oracle's comparisons, and the least gap between what they compared."""

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
    """Results and gradients of the program as it stands; no example where a hair decides them."""
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


def walked(plan: Plan, arrays: Arrays) -> Arrays:
    given = {
        v: np.transpose(arrays[n], plan.orders.get(n, range(np.ndim(arrays[n]))))
        for n, v in plan.inputs.items()
    }
    env = run(plan.nodes, given, plan.sizes, {**PRIMITIVES, **REFERENCE})
    return {name: env[value] for name, value in plan.outputs.items()}


def same(found: Arrays, wanted: Arrays) -> None:
    scale = max(1.0, *(float(np.max(np.abs(a), initial=0.0)) for a in wanted.values()))
    for name, array in wanted.items():
        assert np.shape(found[name]) == np.shape(array), name
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-11 * scale, err_msg=name)


def small(plan: Plan, before: Sequence[Node], steps: int) -> None:
    """No more nodes than a loop that is written out has, and some for each node."""
    count = sum(1 for _ in walk_nodes(before))
    written = steps if steps <= unroll.LONGEST else 1
    assert sum(1 for _ in walk_nodes(plan.nodes)) <= 40 + 3 * count * max(written, 1)


class Watched:
    """Holds every application of a rule against what it was made for: it is nearer to the end."""

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
def watched() -> Iterator[Watched]:
    found = Watched()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rewriter, "_rewritten", lambda *given: found.rewritten(*given))
        yield found


def plans(text: str, sizes: Sizes, fused: Iterable[str]) -> None:
    """All plans of a model end, keep its values, and are not much larger than it."""
    spec = loaded(text)
    training, inference = spec.program("training"), spec.program("inference")
    assert spec.update is not None
    sizes = {**training.sizes, **sizes}
    arrays = drawn(training, sizes)
    wanted = expected(training, arrays, sizes)
    plan = training_plan(training, spec.update, sizes, "float64", fused, learning_rate=0.125)
    for port in training.parameters:
        wanted[port.name] = arrays[port.name] - 0.125 * wanted.pop(f"gradient.{port.name}")
    found = walked(plan, {**arrays, "step": np.float64(1)})
    same(found, {name: wanted[name] for name in plan.outputs if name != "step"})
    small(plan, training.nodes, sizes["time"])
    env = {p.value: arrays[prefix + p.name] for prefix, p in crossing_ports(inference)}
    values = run(inference.nodes, env, sizes, oracle.TABLE)
    for moved in (True, False):
        plan = forward_plan(inference, sizes, "float64", fused, moved=moved)
        same(walked(plan, arrays), {name: values[v] for name, v in plan.outputs.items()})
        small(plan, inference.nodes, sizes["time"])


SETS = {"primitives": (), "numpy": tuple(NUMPYS), "all": tuple(FUSED)}


@pytest.mark.parametrize("large", [unroll.LARGE, 1], ids=["unrolled", "loops"])
@pytest.mark.parametrize("fused", SETS)
@random_models
@given(drawn=models())
def test_the_plans_of_any_model_keep_its_values(
    fused: str, large: int, drawn: tuple[str, dict[str, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unroll, "LARGE", large)
        plans(*drawn, SETS[fused])


@random_models
@given(drawn=models())
def test_every_application_of_a_rule_is_nearer_to_the_end(
    drawn: tuple[str, dict[str, int]],
) -> None:
    with watched() as found:
        plans(*drawn, tuple(FUSED))
    assert 5 * found.deepest < DEEPEST


@pytest.mark.parametrize("name", lesson6())
def test_every_application_in_a_shipped_model_is_nearer_to_the_end(name: str) -> None:
    spec = load_spec(name)
    training, inference = spec.program("training"), spec.program("inference")
    sizes = {**training.sizes, "batch": 64, "time": 40}
    with watched() as found:
        training_plan(training, spec.update, sizes, "float32", FUSED, learning_rate=0.1)
        for moved in (True, False):
            forward_plan(inference, sizes, "float32", (), moved=moved)
    assert 0 < 5 * found.deepest < DEEPEST


# Each was rewritten without end, by rules that undid each other.
OPPOSED = {
    "a column of a loop's outputs": ["y = expand_dims(cell(x), axis=-1)"],
    "two of them": ["y = expand_dims(expand_dims(cell(x), axis=3), axis=-1)"],
    "among sums": ["y = tanh(expand_dims(cell(x), axis=-1)) + expand_dims(x, axis=3)"],
    "permuted again": ["y = permute_dims(expand_dims(cell(x), axis=-1), axes=[1, 0, 2, 3])"],
    "of its last steps": ["y = expand_dims(cell(x)[:, -1:], axis=-1)"],
}
FREE = {"batch": 2, "time": 3}
ONE = """\
model: random
summary: Written.
source: none
sizes: {width: 2}
inputs: {x: {shape: [batch, time, width]}}
layers:
LAYERS
equations: |
EQUATIONS
loss: mean(y)
optimizer: {optimizer: sgd, learning_rate: 0.125}
"""


def written(layers: Mapping[str, str], equations: Iterable[str]) -> str:
    text = ONE.replace("LAYERS", "\n".join(f"  {n}: {{layer: {d}}}" for n, d in layers.items()))
    return text.replace("EQUATIONS", "\n".join(f"  {equation}" for equation in equations))


@pytest.mark.parametrize("fused", SETS)
@pytest.mark.parametrize("name", OPPOSED)
def test_moves_that_could_go_both_ways_go_one(name: str, fused: str) -> None:
    with watched():
        plans(written({"cell": "simple_rnn, units: width"}, OPPOSED[name]), FREE, SETS[fused])


@pytest.mark.slow
def test_three_hundred_layers_in_a_row() -> None:
    """Neither too deep for Python nor too slow."""
    layers = {f"layer{n}": "dense, units: width, activation: tanh" for n in range(300)}
    steps = [f"v{n + 1} = layer{n}(v{n})" for n in range(300)]
    plans(written(layers, ["v0 = tanh(x)", *steps, "y = v300"]), FREE, ())


def test_three_hundred_terms_and_as_many_moves() -> None:
    terms = [f"v{n + 1} = v{n} + tanh(x + {n})" for n in range(300)]
    moves = ["permute_dims({}, axes=[1, 0, 2])", "expand_dims({}, axis=1)[:, 0]", "{}[:, ::-1]"]
    steps = [f"w{n + 1} = " + moves[n % 3].format(f"w{n}") for n in range(300)]
    equations = ["v0 = tanh(x)", *terms, "w0 = tanh(x)", *steps, "y = mean(v300) + mean(w300)"]
    plans(written({"out": "dense, units: width"}, [*equations, "z = out(x)"]), FREE, ())


DEEP = """\
layer: deep
summary: Written.
source: none
inputs: {x: [batch, time, features]}
attributes: {units: size}
parameters: {W: {shape: [features, features], init: orthogonal}}
state: {h: {shape: [batch, features]}}
scan:
  over: {x_t: x}
  step: |
STEP
  output: out
"""


@pytest.mark.parametrize("time", [3, 40])
@pytest.mark.parametrize(
    "move", ["{} @ W", "permute_dims({}, axes=[1, 0])", "expand_dims({}, axis=0)[0]"]
)
def test_a_step_of_three_hundred_moves(move: str, time: int) -> None:
    """What only reads the step's slice leaves the loop, and what only its output needs follows."""
    steps = ["v0 = h @ W"]
    steps += [f"v{n + 1} = " + move.format(f"v{n}") for n in range(300)]
    steps += ["out = v300 / n", "h = tanh(x_t @ W + h)"]
    step = "\n".join(f"    {line}" for line in ["n = 1.0 * units", *steps])
    text = DEEP.replace("STEP", step)
    model = written({"cell": "deep, units: width"}, ["y = cell(x)"])
    overrides = {("model", "random"): model, ("layer", "deep"): text}
    spec = load_spec("random", overrides=overrides)
    sizes = {**spec.program().sizes, "batch": 2, "time": time}
    assert spec.update is not None
    training_plan(spec.program(), spec.update, sizes, "float64", (), learning_rate=0.1)


def test_rules_that_undo_each_other_end() -> None:
    """Whatever is added to the passes: the result is right, and only less optimised."""

    def turned(op: str) -> Any:
        return lambda g, inputs, attributes: g.emit(op, inputs[0])

    def grown(g: Rewriter, inputs: tuple[int, ...], attributes: Any) -> int:
        return g.emit("negative", g.emit("negative", inputs[0]))

    def doubled(g: Rewriter, inputs: tuple[int, ...], attributes: Any) -> int:
        half = g.emit("multiply", inputs[0], g.constant(0.5 + 1e-3 * len(g.made)))
        return g.emit("add", g.emit("exp", half), g.emit("exp", g.emit("negative", half)))

    for rules in (
        {"exp": [turned("tanh")], "tanh": [turned("sqrt")], "sqrt": [turned("exp")]},
        {"negative": [grown]},
        {"exp": [doubled]},
    ):
        builder = Builder()
        x = builder.value(Type((Dim.of("width"),)))
        y = builder.emit("tanh", builder.emit("negative", builder.emit("exp", x)))
        nodes = rebuild(builder.nodes, [y], builder, {"width": 2}, rules)
        assert len(nodes) < 30 * MOST
