"""Attributes that are whole numbers stand where sizes do: in shapes, slices and layers inside."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import SpecError
from harness.language.checksums import checksum
from harness.language.library import Library
from harness.language.model import load_spec
from harness.runtime.native import ClaimableCall

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
  up: {layer: dense, units: 2 * wide}
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
    assert shapes["o.up.W"] == (4, 14)
    assert shapes["o.down.W"] == (14, 4)


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (", kernel: 2.5", "'kernel'"),
        (", kernel: 0", "1 ... 0"),
        (
            ", kernel: witdh",
            "'witdh' ... 'width'",
        ),
        (", kernel: width / 2", "width ... 2"),
        (", kernel: true", "'kernel'"),
    ],
)
def test_what_is_no_length_is_refused(use: str, told: str, wording: Wording) -> None:
    with wording.raises(SpecError, told):
        moved(2, use)


def test_a_shape_by_a_number_is_part_of_the_meaning() -> None:
    def of(text: str) -> str:
        return checksum(Library(overrides={("layer", "moving"): text}), "layer", "moving")

    assert of(MOVING) != of(MOVING.replace("[2 * kernel]", "[3 * kernel]"))


HANDED = """\
layer: handed
summary: Made for a test.
source: Made for a test.
inputs: {x: [batch, rows, columns, width]}
attributes: {kernel: 3, padding: 1}
layers:
  a: {layer: conv2d, units: width, groups: width, kernel: kernel, padding: padding}
  b: {layer: conv2d, units: kernel * width, kernel: kernel, padding: kernel - 2}
equations: y = b(a(x))
output: y
"""


def test_what_is_handed_on_is_part_of_the_meaning() -> None:
    def of(text: str) -> str:
        return checksum(Library(overrides={("layer", "handed"): text}), "layer", "handed")

    changes = [("kernel - 2", "kernel - 1"), ("padding: padding", "padding: kernel")]
    assert len({of(HANDED), *(of(HANDED.replace(*change)) for change in changes)}) == 3
    assert of(HANDED.replace("kernel - 2", "kernel - 1 - 1")) == of(HANDED)


PATCHES = """\
model: patches
summary: Made for a test.
source: Made for a test.
sizes: {grid: 2, patch: 3, width: 4}
inputs:
  x: {shape: [batch, grid * patch, grid * patch, 1]}
layers:
  cut: {layer: conv2d, units: width, kernel: patch, stride: patch}
  same: {layer: conv2d, units: width, kernel: patch, padding: grid * (patch - 2)}
equations: |
  y = cut(x)
  z = same(y)
"""


def test_a_size_stands_where_a_number_does() -> None:
    spec = load_spec("patches", overrides={("model", "patches"): PATCHES})
    program = spec.program()
    ports = {port.name: port for port in program.outputs}
    assert str(program.type_of(ports["y"])) == "[batch, grid, grid, width]"
    assert program.shape(ports["z"], {"batch": 1}) == (1, 4, 4, 4)
    other = spec.program(grid=3, patch=2)
    assert other.shape(ports["y"], {"batch": 1}) == (1, 3, 3, 4)
    call = next(node for node in program.nodes if node.op == "call")
    assert ClaimableCall.of(program, call).attributes["stride"] == (3, 3)


def test_a_size_that_a_number_is_given_is_that_number_in_equations() -> None:
    overrides = {("layer", "scaled"): SCALED}
    program = tiny(["y = o(x)"], "{o: {layer: scaled, by: 2 * width}}", overrides=overrides)
    values = computed(program.program("training"))
    x, y = (values[p.value] for p in (program.program().inputs[0], program.program().outputs[0]))
    np.testing.assert_allclose(y, 8 * x + elu(8 * x, alpha=4))


def test_what_sizes_come_to_is_held_against_what_is_allowed(wording: Wording) -> None:
    text = PATCHES.replace("stride: patch", "dilation: patch - 3")
    with wording.raises(SpecError, "1 ... 3 ... 0"):
        load_spec("patches", overrides={("model", "patches"): text})
    text = PATCHES.replace("kernel: patch, stride", "kernel: 2, stride")
    with wording.raises(SpecError):
        load_spec("patches", overrides={("model", "patches"): text})


SCALED = """\
layer: scaled
summary: Made for a test.
source: Made for a test.
inputs: {x: [batch, time, width]}
attributes: {by: 0.5}
equations: |
  h = by * x
  y = h + elu(h, alpha=width)
output: y
"""


def elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
