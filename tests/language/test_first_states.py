"""What states and parameters start as: numbers, and laws whose arguments are attributes."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import SpecError
from harness.language.initial_values import initial_parameters, initial_state
from harness.language.model import load_spec

RUNNING = """\
layer: running_maximum
summary: The largest of the entries so far.
source: Of a test.
inputs: {x: [batch, time, width]}
attributes: {START}
parameters: {b: {shape: [width], init: LAW}}
state: {m: {shape: [batch, width], init: INIT}}
scan:
  over: {x_t: x}
  step: m = maximum(m, x_t + b)
  output: m
"""
CARRIED = """\
model: carried
summary: A state that is carried from batch to batch.
source: Of a test.
sizes: {width: 2}
inputs: {x: {shape: [batch, width]}}
state:
  zero: {shape: [batch, width]}
  one: {shape: [batch, width], init: ones}
  low: {shape: [batch], init: -2.5}
layers: {}
equations: |
  y = zero * one + low[:, None] + x
  zero = x
  one = x
  low = x[:, 0]
"""


def layer(init: str = "zeros", law: str = "zeros", attributes: str = "") -> dict[tuple, str]:
    text = RUNNING.replace("INIT", init).replace("LAW", law).replace("{START}", f"{{{attributes}}}")
    return {("layer", "running_maximum"): text}


@pytest.mark.parametrize("start", ["-1.0e30", "-3", "0.25", "zeros", "ones"])
def test_a_layers_state_starts_as_it_says(start: str) -> None:
    layers = "{top: {layer: running_maximum}}"
    spec = tiny(["y = top(-9 * x)"], layers, overrides=layer(start))
    program = spec.program("training")
    values = computed(program)
    given = {port.name: values[port.value] for port in (*program.inputs, *program.outputs)}
    first = {"zeros": 0.0, "ones": 1.0}.get(start) if start.isalpha() else float(start)
    # Parameters are drawn at random here: what is added to every step.
    b = values[program.parameters[0].value]
    expected = np.maximum.accumulate(-9 * given["x"] + b, axis=1)
    np.testing.assert_allclose(given["y"], np.maximum(expected, first))


def test_a_models_state_starts_as_it_says() -> None:
    program = load_spec("carried", overrides={("model", "carried"): CARRIED}).program("training")
    found = initial_state(program, 3)
    assert {name: array.tolist() for name, array in found.items()} == {
        "zero": [[0.0, 0.0]] * 3,
        "one": [[1.0, 1.0]] * 3,
        "low": [-2.5] * 3,
    }


@pytest.mark.parametrize(("use", "value"), [("", 0.125), (", first: 4", 4.0)])
def test_a_laws_argument_may_be_an_attribute(use: str, value: float) -> None:
    overrides = layer(law="{constant: {value: first}}", attributes="first: 0.125")
    spec = tiny(["y = top(x)"], f"{{top: {{layer: running_maximum{use}}}}}", overrides=overrides)
    drawn = initial_parameters(spec.program("training"), 0)
    assert drawn["top.b"].tolist() == [value] * 4


OUTER = """\
layer: outer
summary: A layer around another.
source: Of a test.
inputs: {x: [batch, time, width]}
attributes: {spread: 0.5}
layers:
  inner: {layer: dense, bias: false, units: width, init: {W: {constant: {value: spread}}}}
equations: y = inner(x)
output: y
"""


@pytest.mark.parametrize(("use", "value"), [("", 0.5), (", spread: 0.25, repeat: 2", 0.25)])
def test_a_layer_hands_a_number_on_to_a_law_inside(use: str, value: float) -> None:
    overrides = {("layer", "outer"): OUTER}
    spec = tiny(["y = around(x)"], f"{{around: {{layer: outer{use}}}}}", overrides=overrides)
    drawn = initial_parameters(spec.program("training"), 0)
    assert drawn
    for array in drawn.values():
        np.testing.assert_array_equal(array, np.full((4, 4), value))


@pytest.mark.parametrize(
    ("law", "attributes", "told"),
    [
        ("{constant: {value: firts}}", "first: 1", "'firts' ... 'first'"),
        (
            "{constant: {value: first}}",
            "first: size",
            "'first' ... 3",
        ),
        ("{constant: {value: first}}", "first: true", "'first'"),
        ("{normal: {std: first}}", "first: -1", ""),
        ("zeros", "first: 1", "'first'"),
    ],
)
def test_an_attribute_that_is_no_number_is_refused(
    law: str, attributes: str, told: str, wording: Wording
) -> None:
    use = ", first: 3" if "size" in attributes else ""
    with wording.raises(SpecError, told):
        tiny(
            ["y = top(x)"],
            f"{{top: {{layer: running_maximum{use}}}}}",
            overrides=layer(law=law, attributes=attributes),
        ).program("training")


def test_a_models_law_has_numbers_only(wording: Wording) -> None:
    layers = "{top: {layer: dense, units: width, init: {b: {constant: {value: width}}}}}"
    with wording.raises(SpecError):
        tiny(["y = top(x)"], layers).program("training")
