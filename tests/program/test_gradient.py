"""The derived gradients: their values, against two differences, and their form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from golden.tiny import Tiny, draw, draw_cotangents, environment, evaluate, project, tiny
from gradient_check import FREE, Run, central, complex_step, model_run, run_of, worst

from harness.language.library import Library
from harness.oracle.oracle import run
from harness.program.autodiff import rules
from harness.program.autodiff.differentiate import differentiate
from harness.program.autodiff.reverse import hoist
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Node, Type, walk_nodes

ROWS = Dim.of("rows")
MODELS = Library().names("model")
DEFINITIONS = [(kind, n) for kind in ("layer", "function", "loss") for n in Library().names(kind)]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_agrees_with_the_complex_step(model: str) -> None:
    assert worst(model_run(model), complex_step) < 1e-13


# Not of models with maxima in every place, which two points may lie on two sides of, nor of those
# that normalise few entries and so have large third derivatives.
@pytest.mark.parametrize(
    "model", [m for m in MODELS if m not in ("resnet", "resnet_bottleneck", "unet")]
)
def test_a_model_agrees_with_central_differences(model: str) -> None:
    assert worst(model_run(model), central) < 1e-7


def test_both_differences_see_a_wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(r: Any, node: Node, g: int) -> None:
        r.add(node.inputs[0], r.emit("multiply", g, r.constant(1.0 + 1e-6)))

    monkeypatch.setitem(rules.RULES, "tanh", wrong)
    run = model_run("lesson6/three_char")
    assert worst(run, complex_step) > 1e-7
    assert worst(run, central) > 1e-7


def directions(case: Tiny) -> Iterator[tuple[str, Any, Any]]:
    """Each float argument of a definition, a direction, and the derivative along it."""
    given, cotangents = draw(case, 5), draw_cotangents(case, 5)
    found = evaluate(case, given, cotangents)
    rng = np.random.default_rng(2)
    for name in case.against:
        direction = rng.normal(size=np.shape(given[name]))
        yield name, direction, found[f"gradient.{name}"]


def definition_error(case: Tiny, step: complex) -> float:
    """Complex step for an imaginary ``step``, central difference for a real one."""
    cotangents = draw_cotangents(case, 5)
    env = environment(case, draw(case, 5))
    errors = []
    for name, direction, gradient in directions(case):
        value = case.values[name].value
        if step.imag:
            mixed = {k: a.astype(complex) if a.dtype.kind == "f" else a for k, a in env.items()}
            mixed[value] = env[value] + step * direction
            slope = np.imag(project(case, mixed, cotangents, "complex128")) / step.imag
        else:
            ends = [
                project(case, {**env, value: env[value] + h * direction}, cotangents, "float64")
                for h in (step.real, -step.real)
            ]
            slope = (ends[0] - ends[1]) / (2 * step.real)
        scale = float(np.sum(np.abs(gradient * direction)))
        if scale < 1e-12:  # zero but for rounding, as of a bias of keys
            scale = float(np.sum(np.abs(direction)))
        errors.append(abs(float(slope) - float(np.sum(gradient * direction))) / scale)
    assert errors
    return max(errors)


@pytest.mark.parametrize(("kind", "name"), DEFINITIONS)
def test_a_definition_agrees_with_both_differences(kind: str, name: str) -> None:
    case = tiny(kind, name)
    assert definition_error(case, 1e-30j) < 1e-13
    assert definition_error(case, 1e-6 + 0j) < 1e-8


@pytest.mark.parametrize("name", Library().names("layer"))
def test_a_layer_in_inference_agrees_with_the_complex_step(name: str) -> None:
    assert definition_error(tiny("layer", name, phase="inference"), 1e-30j) < 1e-13


# --- Ties, kinks and what does not matter -----------------------------------------------------


def slopes(name: str, **given: Sequence[float]) -> dict[str, Any]:
    """The derivative of a function of ``[batch, time]`` at the given numbers."""
    case = tiny("function", name)
    full = {n: np.resize(np.asarray(v, np.float64), (3, 5)) for n, v in given.items()}
    found = evaluate(case, full, {"y": np.ones((3, 5))})
    count = max(len(v) for v in given.values())
    return {n: found[f"gradient.{n}"].ravel()[:count].tolist() for n in given}


def test_relu_has_slope_0_at_0() -> None:
    assert slopes("relu", x=[-1.0, -0.0, 0.0, 1e-300, 1.0])["x"] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "bound"), [("hard_sigmoid_fifth", 2.5), ("hard_sigmoid_sixth", 3)]
)
def test_a_hard_sigmoid_has_slope_0_at_its_corners(name: str, bound: float) -> None:
    inside = 0.2 if name.endswith("fifth") else 1 / 6
    found = slopes(name, x=[-bound, -0.9 * bound, 0.9 * bound, bound])["x"]
    np.testing.assert_allclose(found, [0, inside, inside, 0], rtol=1e-15)


@pytest.mark.parametrize(("name", "a"), [("maximum", [0, 0, 1]), ("minimum", [1, 0, 0])])
def test_a_tie_gives_its_derivative_to_b(name: str, a: list[int]) -> None:
    found = slopes(name, a=[1.0, 2.0, 3.0], b=[2.0, 2.0, 2.0])
    assert found["a"] == a
    assert found["b"] == [1 - slope for slope in a]


def test_entries_that_tie_for_a_maximum_share_its_derivative() -> None:
    """Of states that begin alike, each example has its share of what the largest gets."""
    run = run_of("y = 0 * cell(x) + max(other, axis=0)", inputs="  other: {shape: [batch, units]}")
    (other,) = [p for p in run.against if p.name == "other"]
    run.env[other.value][:] = 2.0
    found = dict(zip([p.name for p in run.against], run.gradients(), strict=True))["other"]
    whole = run.env[run.program.inputs[1].value].sum((0, 1))
    np.testing.assert_allclose(found, np.broadcast_to(whole / FREE["batch"], found.shape), 1e-14)


def test_what_the_loss_does_not_depend_on_has_zeros() -> None:
    run = run_of("y = cell(x)\nz = other * 2", inputs="  other: {shape: [batch, features]}")
    (other,) = [p for p in run.against if p.name == "other"]
    (gradient,) = [g for p, g in zip(run.against, run.gradients(), strict=True) if p is other]
    assert gradient.shape == (FREE["batch"], 4)
    assert not gradient.any()


def test_absent_rows_get_zeros_and_repeated_rows_their_sum() -> None:
    case = tiny("layer", "embedding")
    cotangent = np.random.default_rng(0).normal(size=(3, 5, 4))
    given = {**draw(case, 0), "indices": np.where(np.arange(15).reshape(3, 5) < 6, 2, 0)}
    found = evaluate(case, given, {"y": cotangent})["gradient.table"]
    flat = cotangent.reshape(15, 4)
    np.testing.assert_allclose(found[2], flat[:6].sum(0), rtol=1e-14)
    np.testing.assert_allclose(found[0], flat[6:].sum(0), rtol=1e-14)
    assert not found[[1, 3, 4, 5]].any()


# --- Compositions -----------------------------------------------------------------------------

TWO = "  cell: {layer: gru, units: units}\n  back: {layer: lstm, units: units}"
THREE = TWO + "\n  out: {layer: dense, units: units}"
SHARED = "  first: {layer: dense, units: features}\n  cell: {layer: simple_rnn, units: units}"
COMPOSITIONS = {
    "reversed": ("y = reverse(cell(reverse(x)))", ""),
    "stacked": ("y = back(cell(x))", TWO),
    "bidirectional": ("y = out(concat([cell(x), reverse(back(reverse(x)))], axis=-1))", THREE),
    "handed on": ("a, h = cell(x)\nb, k, c = back(a, h=h)\ny = b * expand_dims(c, axis=1)", TWO),
    "masked": ("y = where(expand_dims(mask, axis=-1) < 0, 0, cell(x))", ""),
    "pooled": ("y = cell(x) * expand_dims(max(cell(x), axis=1), axis=1)", ""),
    "tied": ("y = cell(x) * max(cell(0 * x), axis=[0, 1], keepdims=1)", ""),
    "shared": ("y = cell(first(first(x)) + x)", SHARED),
    "one cell twice": ("a, h = cell(x)\nb = cell(reverse(x), h=h)\ny = a * b", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_composition_agrees_with_the_complex_step(name: str) -> None:
    equations, layers = COMPOSITIONS[name]
    inputs = "  mask: {shape: [batch, time]}" if name == "masked" else ""
    run = run_of(equations, layers, inputs)
    # A mask only chooses: it has no derivative, and worst() insists on one.
    run = Run(run.program, run.env, tuple(p for p in run.against if p.name != "mask"))
    assert worst(run, complex_step) < 1e-13


def test_a_shared_layer_gets_the_sum_of_its_calls() -> None:
    """The same model with two layers of equal weights: its two gradients add up."""
    once = "  first: {layer: dense, units: features}\n  cell: {layer: simple_rnn, units: units}"
    twice = "  second: {layer: dense, units: features}\n" + once
    shared = run_of("y = cell(first(first(x)))", once)
    apart = run_of("y = cell(second(first(x)))", twice)
    values = {p.name: shared.env[p.value] for p in (*shared.against,)}
    values |= {f"second.{n}": values[f"first.{n}"] for n in ("W", "b")}
    for port in apart.against:
        apart.env[port.value] = values[port.name]
    sums = dict(zip([p.name for p in apart.against], apart.gradients(), strict=True))
    for port, gradient in zip(shared.against, shared.gradients(), strict=True):
        expected = sums[port.name]
        if port.name.startswith("first."):
            expected = expected + sums[port.name.replace("first", "second")]
        np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-14)


# --- Form -------------------------------------------------------------------------------------


def scans(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in walk_nodes(nodes) if node.op == "scan"]


@pytest.mark.parametrize(
    "layer", ["simple_rnn", "lstm", "gru", "gru_reset_after", "gru_concatenated"]
)
def test_a_weight_gradient_is_one_product_after_the_loop(layer: str) -> None:
    case = tiny("layer", layer)
    against = list(case.against.values())
    derived = differentiate(case.program, case.outputs, against)
    matrices = [n for n, p in case.against.items() if n[0] in "WUK" and n in case.values]
    outside = [node for node in derived.program.nodes if node.op == "tensordot"]
    assert len(outside) == len(matrices)
    gradients = {p.name: g.value for p, g in zip(against, derived.gradients, strict=True)}
    made = {o for node in outside for o in node.outputs}
    assert made == {gradients[f"cell.{n}"] for n in matrices}
    forward, backward = scans(derived.program.nodes)
    for node in (forward, backward):
        assert not [inner for inner in walk_nodes(node.block.nodes) if inner.op == "tensordot"]
    assert backward.reverse is not forward.reverse
    # Only the states' cotangents are carried: no weight's gradient is accumulated in the loop.
    assert backward.carries == forward.carries


def test_the_gradient_of_an_index_input_is_a_segment_sum() -> None:
    derived = model_run("lesson6/simple_rnn").derive()
    ops = [node.op for node in walk_nodes(derived.program.nodes)]
    assert ops.count("segment_sum") == 1
    assert ops.count("take") == 1


DOUBLED = """layer: doubled
summary: s
source: s
inputs: {x: [batch, time, features]}
attributes: {units: size}
parameters:
  W: {shape: [features, units], init: ones}
  a: {shape: [units], init: ones}
state:
  h: {shape: [batch, units]}
scan:
  over: {x_t: x}
  step: h = tanh(x_t @ W * exp(a) + h)
  output: h
"""


@pytest.mark.parametrize("part", ["(h * a)[:, :1] @ W[:1]", "(h * a)[:, None][:, 0, 1:2] @ W[:1]"])
def test_a_loop_multiplies_a_part_of_what_the_state_has_become(part: str) -> None:
    text = DOUBLED.replace("exp(a) + h", f"a + {part}")
    case = tiny("layer", "doubled", overrides={("layer", "doubled"): text})
    assert definition_error(case, 1e-30j) < 1e-13


def test_what_does_not_change_leaves_the_loop() -> None:
    case = tiny("layer", "doubled", overrides={("layer", "doubled"): DOUBLED})
    derived = differentiate(case.program, case.outputs, list(case.against.values()))
    outer = [node.op for node in derived.program.nodes]
    assert outer.count("exp") == 1
    assert "permute_dims" in outer  # W transposed for the backward loop: once, or in its body
    for loop in scans(derived.program.nodes):
        assert "exp" not in [node.op for node in loop.block.nodes]
    assert definition_error(case, 1e-30j) < 1e-13


def test_a_loop_that_reads_the_state_of_the_loop_around_it_stays_inside() -> None:
    builder = Builder()
    start, sequence = builder.value(Type((ROWS,))), builder.value(Type((ROWS, ROWS)))
    outer, inner = builder.value(Type((ROWS,))), builder.value(Type((ROWS,)))
    rows = [builder.value(Type((ROWS,))) for _ in range(2)]
    builder.begin()
    builder.begin()
    total = builder.emit("add", inner, outer)
    last, _ = builder.scan(builder.end([inner, rows[0]], [total]), [start], [sequence])
    builder.scan(builder.end([outer, rows[1]], last), [start], [sequence])
    (loop,) = hoist(builder.nodes)
    assert [node.op for node in loop.block.nodes] == ["scan"]


def test_the_backward_pass_recomputes_the_windows_of_an_image() -> None:
    case = tiny("layer", "conv2d")
    given, against = draw(case, 3), list(case.against.values())
    seeds, found = draw_cotangents(case, 3), []
    for recomputes in (False, True):
        derived = differentiate(case.program, case.outputs, against, recomputes=recomputes)
        nodes = derived.program.nodes
        assert [node.op for node in nodes].count("windows") == 1 + recomputes
        env = environment(case, given)
        env |= {seed.value: seeds[seed.name] for seed in derived.seeds}
        result = run(nodes, env, case.sizes)
        found.append([result[port.value] for port in derived.gradients])
    for kept, recomputed in zip(*found, strict=True):
        assert np.array_equal(kept, recomputed)


def test_the_backward_loop_stacks_nothing_twice() -> None:
    for name in ("lstm", "gru"):
        case = tiny("layer", name)
        derived = differentiate(case.program, case.outputs, list(case.against.values()))
        for loop in scans(derived.program.nodes):
            assert len(set(loop.inputs)) == len(loop.inputs)
            assert len(set(loop.outputs)) == len(loop.outputs)
