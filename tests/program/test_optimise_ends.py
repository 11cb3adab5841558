"""The passes end, on what they went round in circles on and on what is deep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from plan_checks import SETS, check_plans, watch_rewrites

from harness.language.model import load_spec
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Type
from harness.program.passes.rebuild import rebuild_nodes
from harness.program.passes.rewriter import MOST, Rewriter
from harness.program.plan import training_plan

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
    with watch_rewrites():
        check_plans(written({"cell": "simple_rnn, units: width"}, OPPOSED[name]), FREE, SETS[fused])


@pytest.mark.slow
def test_three_hundred_layers_in_a_row() -> None:
    """Neither too deep for Python nor too slow."""
    layers = {f"layer{n}": "dense, units: width, activation: tanh" for n in range(300)}
    steps = [f"v{n + 1} = layer{n}(v{n})" for n in range(300)]
    check_plans(written(layers, ["v0 = tanh(x)", *steps, "y = v300"]), FREE, ())


def test_three_hundred_terms_and_as_many_moves() -> None:
    terms = [f"v{n + 1} = v{n} + tanh(x + {n})" for n in range(300)]
    moves = ["permute_dims({}, axes=[1, 0, 2])", "expand_dims({}, axis=1)[:, 0]", "{}[:, ::-1]"]
    steps = [f"w{n + 1} = " + moves[n % 3].format(f"w{n}") for n in range(300)]
    equations = ["v0 = tanh(x)", *terms, "w0 = tanh(x)", *steps, "y = mean(v300) + mean(w300)"]
    check_plans(written({"out": "dense, units: width"}, [*equations, "z = out(x)"]), FREE, ())


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
        nodes = rebuild_nodes(builder.nodes, [y], builder, {"width": 2}, rules)
        assert len(nodes) < 30 * MOST
