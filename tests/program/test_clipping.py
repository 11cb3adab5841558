"""Clipping is known again however it is written, and nothing else is taken for it."""

from __future__ import annotations

import pytest

from harness.language.model import Spec, load_spec
from harness.program.clipping import Clipping, clipping

MODEL = """\
model: clipped
summary: One layer.
source: Made for a test.
sizes: {features: 3}
inputs: {x: {shape: [batch, features]}}
layers: {out: {layer: dense, units: features}}
equations: y = out(x)
targets: {target: {shape: [batch, features]}}
loss: mean(squared_error(y, target))
"""
GLOBAL = "square: g * g"


def spec_with(gradient: str, total: str = "") -> Spec:
    optimizer = f"optimizer:\n  optimizer: sgd\n  learning_rate: 0.1\n  gradient: {gradient}\n"
    added = f"  total: {{{total}}}\n" if total else ""
    return load_spec("clipped", overrides={("model", "clipped"): MODEL + optimizer + added})


@pytest.mark.parametrize(
    ("gradient", "limit", "epsilon"),
    [
        ("g * minimum(1, 1 / sqrt(square))", 1, 0),
        ("minimum(0.5 / sqrt(square), 1) * g", 0.5, 0),
        ("g * 2 / maximum(2, sqrt(square))", 2, 0),
        ("2 * (g / maximum(square ** 0.5, 2))", 2, 0),
        ("g / maximum(1, sqrt(square) / 4)", 4, 0),
        ("g * minimum(1, 3 / (sqrt(square) + 1e-6))", 3, 1e-6),
        ("g * minimum(1, 3 / (1e-6 + sqrt(square)))", 3, 1e-6),
        ("where(sqrt(square) < 1, g, g / sqrt(square))", 1, 0),
        ("where(sqrt(square) > 2, g * 2 / sqrt(square), g)", 2, 0),
        ("where(square ** 0.5 >= 2, g / square ** 0.5 * 2, g)", 2, 0),
    ],
)
@pytest.mark.parametrize("square", ["g * g", "g ** 2"])
def test_clipping_by_a_norm(gradient: str, limit: float, epsilon: float, square: str) -> None:
    rule = spec_with(gradient, f"square: {square}").update
    assert rule is not None
    assert clipping(rule) == Clipping("global_norm", limit, epsilon)
    rule = spec_with(gradient.replace("square", f"sum({square})")).update
    assert rule is not None
    assert clipping(rule) == Clipping("norm", limit, epsilon)


@pytest.mark.parametrize(
    "gradient", ["maximum(minimum(g, 0.5), -0.5)", "minimum(maximum(g, -0.5), 0.5)"]
)
def test_clipping_by_value(gradient: str) -> None:
    rule = spec_with(gradient).update
    assert rule is not None
    assert clipping(rule) == Clipping("value", 0.5)


@pytest.mark.parametrize(
    ("gradient", "total"),
    [
        ("g + 0.01 * p", ""),
        ("2 * g", ""),
        ("-g", ""),
        # NaN would become a number.
        ("minimum(0.5, maximum(-0.5, g))", ""),
        ("maximum(-0.5, minimum(g, 0.5))", ""),
        ("maximum(minimum(g, 0.5), -1)", ""),
        ("minimum(maximum(g, 0.5), -0.5)", ""),
        ("minimum(minimum(g, 0.5), -0.5)", ""),
        ("maximum(minimum(p + g, 0.5), -0.5)", ""),
        ("minimum(g, 1)", ""),
        ("g / sqrt(square)", GLOBAL),
        ("g * minimum(1, 1 / square)", GLOBAL),
        ("g * minimum(2, 1 / sqrt(square))", GLOBAL),
        ("-g * minimum(1, 1 / sqrt(square))", GLOBAL),
        ("g * maximum(1, 1 / sqrt(square))", GLOBAL),
        ("g * minimum(1, -1 / sqrt(square))", GLOBAL),
        ("g * minimum(1, 0 / sqrt(square))", GLOBAL),
        ("g / maximum(0, sqrt(square))", GLOBAL),
        ("g * minimum(1, 1 / (sqrt(square) - 1e-6))", GLOBAL),
        ("g * minimum(1, 1 / sqrt(square + 1e-6))", GLOBAL),
        ("g * minimum(1, 1 / sqrt(square)) + 0.01 * p", GLOBAL),
        ("g * minimum(1, 1 / sqrt(square)) * minimum(1, 1 / t)", GLOBAL),
        ("g * minimum(1, 1 / t) + 0 * square", GLOBAL),
        ("g * minimum(1, p / sqrt(square))", GLOBAL),
        ("where(sqrt(square) < 2, g, g / sqrt(square))", GLOBAL),
        ("where(sqrt(square) < 1, g / sqrt(square), g)", GLOBAL),
        ("where(sqrt(square) < 1, g, p / sqrt(square))", GLOBAL),
        ("where(sqrt(square) < 0, g, 0 * g / sqrt(square))", GLOBAL),
        ("g * minimum(1, 1 / sqrt(square))", "square: p * g"),
        ("g * minimum(1, 1 / sqrt(square))", "square: g * g * g"),
        ("g * minimum(1, 1 / sqrt(square))", "square: g ** 4"),
        ("g * minimum(1, 1 / sqrt(square))", "square: abs(g)"),
        ("g * minimum(1, 1 / sqrt(sum(p * g)))", ""),
        ("g * minimum(1, 1 / sqrt(g * g))", ""),
        ("g * minimum(1, 1 / sqrt(mean(g * g)))", ""),
        ("g * minimum(1, 1 / max(g))", ""),
        # With numbers below 0 it is the other way round.
        ("where(-1 * sqrt(square) < -2, g, g * 2 / sqrt(square))", GLOBAL),
        ("-1 * g * minimum(-1, -2 / sqrt(square))", GLOBAL),
        ("-1 * g / maximum(-1, -1 * sqrt(square) / 2)", GLOBAL),
        ("g * -2 / maximum(-2, sqrt(sum(g * g)) * -0.5)", ""),
        ("where(-2 <= sqrt(square) * -0.5, g * -2 / (sqrt(square) * -0.5), g)", GLOBAL),
        # Where an entry is 0, this is no number.
        ("g * g * minimum(1, 1 / sqrt(square)) / g", GLOBAL),
        ("g * minimum(1, 1 / (sqrt(square) * sqrt(square) / sqrt(square)))", GLOBAL),
        # Numbers that are none, or none in float32.
        ("g / maximum(1, 0 * sqrt(square))", GLOBAL),
        ("g / maximum(1, 1e-310 * sqrt(square))", GLOBAL),
        ("g / 1e-310", ""),
        ("g * 1e300 * 1e300", ""),
        ("g / 0", ""),
        ("maximum(minimum(g, 1e39), -1e39)", ""),
        ("g * minimum(1, 1e-40 / sqrt(square))", GLOBAL),
        ("g * minimum(1, 1e30 / sqrt(square))", GLOBAL),
    ],
)
def test_anything_else_is_none(gradient: str, total: str) -> None:
    rule = spec_with(gradient, total).update
    assert rule is not None
    assert rule.fed is not None
    assert clipping(rule) is None


def test_without_a_gradient_of_its_own_there_is_none() -> None:
    rule = load_spec("gpt").update
    assert rule is not None
    assert clipping(rule) is None
