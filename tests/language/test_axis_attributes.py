"""Attributes with one value per axis, parameters that an attribute leaves out, and quotients."""

import numpy as np
import pytest
from wording import Wording

from harness.errors import SpecError
from harness.extend import ClaimableCall
from harness.language.model import Spec, load_spec

MODEL = """\
model: convolved
summary: Made for a test.
source: Made for a test.
sizes: {half: 2, side: 3}
inputs: {x: {shape: [batch, 2 * side, 7, 2 * half]}}
layers:
  conv: {layer: conv2d, units: 4 * half, kernel: 3}
equations: y = conv(x)
"""


def convolved(change: str) -> Spec:
    text = MODEL.replace("kernel: 3", change)
    return load_spec("convolved", overrides={("model", "convolved"): text})


@pytest.mark.parametrize(
    ("change", "attributes", "shape"),
    [
        ("kernel: 3", {"kernel": (3, 3), "padding": ((0, 0), (0, 0))}, (4, 5)),
        ("kernel: [2, 1]", {"kernel": (2, 1), "stride": (1, 1)}, (5, 7)),
        ("kernel: 3, padding: valid", {"padding": ((0, 0), (0, 0))}, (4, 5)),
        ("kernel: 3, padding: [1, [0, half]]", {"padding": ((1, 1), (0, 2))}, (6, 7)),
        ("kernel: [3, 2], padding: same", {"padding": "same"}, (6, 7)),
        ("kernel: 3, padding: same, stride: [2, 3]", {"stride": (2, 3)}, (3, 3)),
        ("kernel: 1, padding: same, stride: [2, 3]", {"stride": (2, 3)}, (3, 3)),
        ("kernel: 2, padding: same, dilation: [2, 1]", {"dilation": (2, 1)}, (6, 7)),
    ],
)
def test_each_axis_has_its_own_value(
    change: str, attributes: dict[str, object], shape: tuple[int, int]
) -> None:
    program = convolved(change).program()
    (call,) = program.calls
    found = ClaimableCall.of(program, call).attributes
    assert {name: found[name] for name in attributes} == attributes
    assert program.shape(program.outputs[0], {"batch": 1})[1:3] == shape


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ("kernel: [3, 3, 3]", "'kernel' ... 2 ... 3"),
        ("kernel: tall", "'tall'"),
        ("kernel: true", "'kernel'"),
        ("stride: 2", "'kernel'"),
        ("kernel: 3, stride: [1, [1, 1]]", "'stride'"),
        ("kernel: 3, padding: [[1, 2, 3], 0]", "'padding'"),
        ("kernel: 3, padding: [same, 0]", "'same'"),
        ("kernel: 3, groups: 3", "3 ... 2*half"),
        ("kernel: 3, bias: 0", "'bias'"),
        ("kernel: 3, bias: false, init: {b: ones}", "'b' ... bias"),
        ("kernel: 2 * side, padding: same, dilation: side", "side"),
    ],
)
def test_a_value_of_a_wrong_form_is_rejected_with_its_place(
    change: str, facts: str, wording: Wording
) -> None:
    with wording.raises(SpecError, facts) as caught:
        convolved(change)
    assert caught.value.place is not None


@pytest.mark.parametrize(
    "change", ["kernel: tall", "kernel: [3, tall]", "kernel: 3, padding: [0, [0, tall]]"]
)
def test_a_size_that_occurs_only_in_a_list_is_used(change: str) -> None:
    text = MODEL.replace("side: 3}", "side: 3, tall: 2}").replace("kernel: 3", change)
    spec = load_spec("convolved", overrides={("model", "convolved"): text})
    assert spec.program().sizes["tall"] == 2


def test_without_a_bias_there_is_no_parameter_and_nothing_is_added() -> None:
    program = convolved("kernel: 3, bias: false").program()
    assert [port.name for port in program.parameters] == ["conv.W"]
    assert "add" not in {node.op for node in program.nodes}


def test_each_group_of_channels_has_its_own_units() -> None:
    shapes = {}
    for groups in (1, 2, "half", "2 * half"):
        program = convolved(f"kernel: 3, groups: {groups}").program()
        shapes[groups] = program.shape(program.parameters[0])
    assert shapes == {
        1: (3, 3, 4, 8),
        2: (3, 3, 2, 8),
        "half": (3, 3, 2, 8),
        "2 * half": (3, 3, 1, 8),
    }


BLOCK = """\
layer: block
summary: Made for a test.
source: Made for a test.
inputs: {x: [batch, rows, columns, channels]}
attributes: {kernel: [size, size], padding: [[0, 0], [0, 0]], stride: 1, bias: true}
layers:
  conv: {layer: conv2d, units: 8, kernel: kernel, padding: padding, stride: stride, bias: bias}
equations: y = conv(x)
output: y
"""


def test_a_block_passes_lists_on() -> None:
    text = MODEL.replace(
        "conv2d, units: 4 * half, kernel: 3", "block, kernel: [1, 2], padding: same, bias: false"
    )
    overrides = {("model", "convolved"): text, ("layer", "block"): BLOCK}
    program = load_spec("convolved", overrides=overrides).program()
    attributes = ClaimableCall.of(program, program.calls[0]).attributes
    names = ("kernel", "padding", "stride", "bias")
    assert [attributes[n] for n in names] == [(1, 2), "same", (1, 1), False]
    assert np.prod(program.shape(program.parameters[0])) == 64


@pytest.mark.parametrize(
    ("before", "after", "facts"),
    [
        ("stride: 1", "stride: [1, half]", "'half'"),
        ("[[0, 0], [0, 0]]", "[[0, 0, 0], [0, 0]]", "2 ... 3"),
        ("equations: y = conv(x)", "equations: y = kernel * conv(x)", "'kernel'"),
    ],
)
def test_a_definition_with_a_wrong_list_is_rejected(
    before: str, after: str, facts: str, wording: Wording
) -> None:
    text = MODEL.replace("conv2d, units: 4 * half", "block")
    overrides = {("model", "convolved"): text, ("layer", "block"): BLOCK.replace(before, after)}
    with wording.raises(SpecError, facts):
        load_spec("convolved", overrides=overrides)
