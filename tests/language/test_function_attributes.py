"""Functions and losses with attributes and keywords, sizes they can see, and boolean attributes."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import ARRAYS, computed, tiny
from wording import Wording

from harness.errors import SpecError
from harness.language.checksums import checksum
from harness.language.library import Library
from harness.oracle.case import Case
from harness.oracle.complex_step import ALLOWED, complex_step_gap

SCALE = """\
function: scale
summary: Of a test.
source: Of a test.
inputs: {x: [..., width], y: any}
attributes: {parts: size, by: 2.0, axis: -1, squash: tanh, keep: true}
equations: |
  first = squash(by * x / width) + sum(astype(arange(parts))) * mean(x - x, axis=axis)[..., None]
  z = where(keep, first, first * y)
output: z
"""
FLAT = """\
loss: flat
summary: Of a test.
source: Of a test.
inputs: {prediction: [..., width], target: [..., width]}
attributes: {smooth: 0.0, average: false}
equations: |
  off = (prediction - target - smooth / width) ** 2
  y = where(average, sum(off, axis=-1) / width, sum(off, axis=-1))
output: y
"""
GATED = """\
layer: gated
summary: Of a test.
source: Of a test.
inputs: {x: [..., features]}
attributes: {causal: false, slope: 0.01}
parameters: {W: {shape: [features, features], init: glorot_uniform}}
equations: |
  seen = (arange(features)[None, :] <= arange(features)[:, None]) | ~causal
  y = leaky_relu(x @ where(seen, W, 0), slope=slope)
output: y
"""
OVERRIDES = {("function", "scale"): SCALE, ("loss", "flat"): FLAT, ("layer", "gated"): GATED}


def outputs(equations, **more):
    program = tiny(equations, overrides=OVERRIDES, **more).program("training")
    values = computed(program)
    found = {p.name: values[p.value] for p in (*program.inputs, *program.targets)}
    found |= {p.name: values[p.value] for p in (*program.outputs, *program.parameters)}
    return found | {"loss": values[program.loss]}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("softmax(x, axis=1)", lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        ("softmax(x=x, axis=0)", lambda x: np.exp(x) / np.exp(x).sum(0, keepdims=True)),
        ("log_softmax(x, axis=-2)", lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))),
        (
            "logsumexp(x, axis=1)[:, None]",
            lambda x: 0 * x + np.log(np.exp(x).sum(1, keepdims=True)),
        ),
        ("leaky_relu(-x, slope=0.5) + 0 * x", lambda x: -0.5 * x),
        ("elu(-x, alpha=2)", lambda x: 2 * np.expm1(-x)),
        ("scale(x, x, parts=2)", lambda x: np.tanh(x / 2)),
        ("scale(y=x, x=x, parts=2, by=-1)", lambda x: np.tanh(-x / 4)),
        ("scale(x, x, parts=2, squash=exp)", lambda x: np.exp(x / 2)),
        ("scale(x, x, keep=false, parts=2)", lambda x: np.tanh(x / 2) * x),
    ],
)
def test_a_call_gives_what_numpy_gives(call, expected) -> None:
    found = outputs([f"y = {call} + 0 * x"])
    np.testing.assert_allclose(found["y"], expected(found["x"]), rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", lambda off: (off**2).sum(-1)),
        (", smooth=0.5, average=true", lambda off: ((off - 0.125) ** 2).mean(-1)),
    ],
)
def test_a_loss_sees_sizes_and_takes_booleans(given, expected) -> None:
    found = outputs(["y = tanh(x)"], loss=f"mean(flat(y, target{given}))")
    np.testing.assert_allclose(found["loss"], expected(found["y"] - found["target"]).mean())


@pytest.mark.parametrize("causal", [True, False])
def test_a_layer_has_boolean_attributes(causal: bool) -> None:
    use = f"{{cell: {{layer: gated, causal: {str(causal).lower()}, slope: 0.25}}}}"
    found = outputs(["y = cell(x)"], layers=use)
    kept = np.tril(found["cell.W"]) if causal else found["cell.W"]
    np.testing.assert_allclose(found["y"], found["x"] @ kept)
    assert ARRAYS["batch"] == len(found["y"])


def test_derivatives_are_those_of_the_complex_step() -> None:
    equations = [
        "a = softmax(x, axis=1) * scale(x, x, parts=2, keep=false)",
        "y = a - elu(-x, alpha=3) * logsumexp(x, axis=1)[:, None]",
    ]
    case = Case(tiny(equations, overrides=OVERRIDES), {}, 2, 3)
    assert complex_step_gap(case) <= ALLOWED


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ("softmax(x, axis=3)", "3 ... 3"),
        ("softmax(x, axis=width)", "-1; 'axis'"),
        ("softmax(x, axis=0.5)", "'axis' ... 0.5"),
        ("softmax(x, axes=1)", "'axes' ... 'axis'"),
        ("softmax(x, x=x)", "'x'"),
        ("softmax(axis=1)", "'x'"),
        ("scale(x, x)", "'parts' ... 'scale'"),
        ("scale(x, x, parts=2, keep=1)", "'keep' ... 1"),
        ("scale(x, x, parts=2, keep=True)", "'True'"),
        ("scale(x, x, parts=2, by=true)", "'by'"),
        ("scale(x, x, parts=2, squash=tahn)", "'tahn'"),
        ("sum(x, axis=1, keepdims=2)", ""),
    ],
)
def test_what_does_not_fit_is_told(equation: str, message: str, wording: Wording) -> None:
    with wording.raises(SpecError, message):
        tiny([f"y = x + 0 * mean({equation})"], overrides=OVERRIDES)


def test_defaults_and_calls_are_a_part_of_what_a_function_means() -> None:
    def meaning(text: str) -> str:
        return checksum(Library((), {("function", "scale"): text}), "function", "scale")

    own = meaning(SCALE)
    assert meaning(SCALE.replace("by: 2.0", "by: 3.0")) != own
    assert meaning(SCALE.replace("keep: true", "keep: false")) != own
    assert meaning(SCALE.replace("squash: tanh", "squash: exp")) != own
    assert meaning(SCALE.replace("width", "wide")) == own
    plain = SCALE.replace("first * y", "softmax(first) * y")
    same = SCALE.replace("first * y", "softmax(first, axis=-1) * y")
    other = SCALE.replace("first * y", "softmax(first, axis=1) * y")
    assert meaning(plain) == meaning(same)
    assert meaning(plain) != meaning(other)
