"""Scans from the last step to the first, and over another axis than time."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import SpecError
from harness.language.checksums import checksum
from harness.language.library import Library
from harness.oracle.case import Case
from harness.oracle.complex_step import ALLOWED, complex_step_gap
from harness.program.plan import training_plan

LAYER = """\
layer: leak
summary: Of a test.
source: Of a test.
inputs: {x: [batch, time, features]}
attributes: {rate: 0.5, back: false}
parameters: {b: {shape: [features], init: ones}}
state: {h: {shape: [batch, features]}}
scan:
  over: {x_t: x}
  WAY
  step: |
    h = rate * h + x_t * b
  output: h
"""
# Over features, of which each has a row of all steps.
ACROSS = LAYER.replace("[features], init", "[], init").replace("[batch, features]", "[batch, time]")


def written(way: str, text: str = LAYER):
    return {("layer", "leak"): text.replace("  WAY\n", f"  {way}\n" if way else "")}


def run(way: str, text: str = LAYER, use: str = "") -> dict[str, np.ndarray]:
    text = text if "back" in way else text.replace(", back: false", "")
    layers = f"{{leak: {{layer: leak{use}}}}}"
    program = tiny(["y, h = leak(x)"], layers, overrides=written(way, text)).program("training")
    values = computed(program)
    ports = (*program.inputs, *program.outputs, *program.parameters)
    return {port.name: values[port.value] for port in ports}


def leaked(x: np.ndarray) -> np.ndarray:
    """By the first axis."""
    h, found = 0.0, []
    for row in x:
        h = 0.5 * h + row
        found.append(h)
    return np.stack(found)


@pytest.mark.parametrize(
    ("way", "use", "backwards"),
    [
        ("", "", False),
        ("reverse: true", "", True),
        ("reverse: back", "", False),
        ("reverse: back", ", back: true", True),
    ],
)
def test_a_scan_goes_backwards(way: str, use: str, backwards: bool) -> None:
    found = run(way, use=use)
    steps = np.moveaxis(found["x"] * found["leak.b"], 1, 0)
    expected = leaked(steps[::-1])[::-1] if backwards else leaked(steps)
    np.testing.assert_allclose(found["y"], np.moveaxis(expected, 0, 1))
    np.testing.assert_allclose(found["h"], expected[0 if backwards else -1])


@pytest.mark.parametrize("way", ["axis: 2", "axis: 2\n  reverse: true"])
def test_a_scan_goes_over_another_axis(way: str) -> None:
    found = run(way, ACROSS)
    steps = np.moveaxis(found["x"] * found["leak.b"], 2, 0)
    expected = leaked(steps[::-1])[::-1] if "reverse" in way else leaked(steps)
    np.testing.assert_allclose(found["y"], np.moveaxis(expected, 0, 2))


def test_places_that_a_scan_gives_out_are_below_what_they_were() -> None:
    """The place of the largest so far, of which there are as many as features."""
    text = LAYER.replace("output: h", "output: place")
    text = text.replace(
        "h = rate * h + x_t * b\n", "h = rate * h + x_t * b\n    place = argmax(h)\n"
    )
    text = text.replace(", back: false", "")
    layers = "{leak: {layer: leak}}"
    equations = ["k, h = leak(x)", "y = x * one_hot(k, width)"]
    program = tiny(equations, layers, overrides=written("", text)).program("training")
    values = computed(program)
    found = {p.name: values[p.value] for p in (*program.inputs, *program.outputs)}
    kept = found["y"] != 0
    assert np.all(np.count_nonzero(kept, -1) <= 1)
    np.testing.assert_array_equal(found["y"][kept], found["x"][kept])


@pytest.mark.parametrize("way", ["axis: 2\n  reverse: true", "reverse: true", "axis: 0"])
def test_derivatives_and_plans(way: str) -> None:
    text = ACROSS if "axis" in way else LAYER
    if "axis: 0" in way:
        text = LAYER.replace("[batch, features]", "[time, features]")
    text = text.replace(", back: false", "")
    spec = tiny(["y = leak(tanh(x))"], "{leak: {layer: leak}}", overrides=written(way, text))
    case = Case(spec, {}, 2, 3)
    assert complex_step_gap(case) <= ALLOWED
    sizes = {**case.training.sizes, "batch": 2, "time": 3}
    plan = training_plan(case.training, spec.rule("sgd"), sizes, "float64", (), learning_rate=0.1)
    assert plan.nodes


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("axis: 3", "3"),
        ("reverse: rate", "'rate'"),
        ("axis: -1", "0"),
    ],
)
def test_what_cannot_be_is_told(way: str, message: str, wording: Wording) -> None:
    text = LAYER.replace(", back: false", "")
    with wording.raises(SpecError, message):
        tiny(["y = leak(x)"], "{leak: {layer: leak}}", overrides=written(way, text))


def test_the_way_is_a_part_of_the_meaning() -> None:
    plain = LAYER.replace(", back: false", "")
    found = {
        checksum(Library((), written(way, plain)), "layer", "leak")
        for way in ("", "reverse: true", "axis: 0", "reverse: false")
    }
    assert len(found) == 3
