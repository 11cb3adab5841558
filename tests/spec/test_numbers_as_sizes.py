"""Attributes that are whole numbers stand where sizes do: in shapes, slices and layers inside."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import computed, tiny

from harness.errors import SpecError
from harness.spec.library import Library
from harness.spec.meaning import checksum

MOVING = """\
layer: moving
summary: A weighed sum of some steps, each features of its own.
source: Of a test.
inputs: {x: [batch, time, width]}
attributes: {kernel: 3}
parameters:
  W: {shape: [kernel, width], init: ones}
  b: {shape: [2 * kernel], init: zeros}
equations: |
  seen = windows(x, axes=[1], size=kernel, padding=kernel - 1, after=0)
  early = where(arange(time) < kernel, 1, 2)
  y = sum(seen * W, axis=2) * early[:, None] + sum(b[kernel:])
output: y
"""
OUTER = """\
layer: outer
summary: A layer around another, with a size inside.
source: Of a test.
inputs: {x: [batch, time, width]}
attributes: {wide: 6}
layers:
  up: {layer: dense, units: wide}
  down: {layer: dense, units: width}
equations: y = down(up(x))
output: y
"""


def moved(kernel: int, use: str) -> None:
    overrides = {("layer", "moving"): MOVING}
    program = tiny(["y = m(x)"], f"{{m: {{layer: moving{use}}}}}", overrides=overrides)
    values = computed(program.program("training"))
    ports = program.program("training")
    x, y = (values[p.value] for p in (ports.inputs[0], ports.outputs[0]))
    weights, b = (values[p.value] for p in ports.parameters)
    assert weights.shape == (kernel, 4)
    assert b.shape == (2 * kernel,)
    padded = np.concatenate([np.zeros((2, kernel - 1, 4)), x], axis=1)
    sums = [(padded[:, t : t + kernel] * weights).sum(1) for t in range(3)]
    early = np.where(np.arange(3) < kernel, 1, 2)[:, None]
    np.testing.assert_allclose(y, np.stack(sums, axis=1) * early + b[kernel:].sum())


def test_the_default_is_a_size() -> None:
    moved(3, "")


def test_a_number_that_is_given_is_a_size() -> None:
    moved(2, ", kernel: 2")


def test_a_number_is_handed_on_as_a_size() -> None:
    overrides = {("layer", "outer"): OUTER}
    program = tiny(["y = o(x)"], "{o: {layer: outer, wide: 7}}", overrides=overrides)
    shapes = {
        p.name: program.program("training").shape(p) for p in program.program("training").parameters
    }
    assert shapes["o.up.W"] == (4, 7)
    assert shapes["o.down.W"] == (7, 4)


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (", kernel: 2.5", "unknown size 'kernel'"),
        (", kernel: 0", "an axis has 1 entry or more, found kernel = 0"),
        (", kernel: width", "found 'width', a size: write its number, or declare the"),
    ],
)
def test_what_is_no_length_is_refused(use: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        moved(2, use)


def test_a_shape_by_a_number_is_part_of_the_meaning() -> None:
    def of(text: str) -> str:
        return checksum(Library(overrides={("layer", "moving"): text}), "layer", "moving")

    assert of(MOVING) != of(MOVING.replace("[2 * kernel]", "[3 * kernel]"))
