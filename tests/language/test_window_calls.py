"""``windows`` and ``overlap_add`` in equations: lengths that are told or declared, and messages."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import HarnessError, SpecError, UsageError
from harness.oracle.case import Case
from harness.oracle.complex_step import ALLOWED, complex_step_gap
from harness.program.autodiff import rules
from harness.program.dims import Dim, shape_text
from harness.program.primitives import offers_needed
from harness.program.signature import check_room

PATCHES = "p = windows(x, axes=[1, 2], size=[2, 3], padding=[1, 0])"
GROUPED = """layer: grouped
summary: Convolves groups of channels, each with a kernel of its own.
source: Krizhevsky, Sutskever and Hinton, 2012.
inputs: {x: [batch, steps, channels]}
attributes: {groups: size, each: size, units: size, kernel: size}
parameters:
  W: {shape: [groups, kernel * each, units], init: glorot_uniform}
equations: |
  parts = split(windows(x, axes=[1], size=kernel), axis=-1, sizes=[groups, each])
  rows = merge(permute_dims(parts, axes=[3, 0, 1, 2, 4]), axes=[3, 4])
  y = merge(permute_dims(rows @ W[:, None], axes=[1, 2, 0, 3]), axes=[2, 3])
output: y
"""


def shape_of(equation: str) -> str:
    program = tiny([equation, "y = x * mean(z)"]).program()
    named = {name: value for value, name in program.names.items()}
    return shape_text(program.types[named["z"]].shape)


def test_windows_stand_behind_the_last_of_their_axes() -> None:
    found = shape_of("z = windows(x, axes=[1, 2], size=[2, 3])")
    assert found == "[batch, time - 1, width - 2, 2, 3]"
    assert shape_of("z = windows(x, axes=[1], size=2)") == "[batch, time - 1, 2, width]"
    found = shape_of("z = windows(x, axes=[0, 2], size=1, padding=1)")
    assert found == "[batch + 2, time, width + 2, 1, 1]"
    found = shape_of("z = windows(x, axes=-1, size=2, stride=1, padding=1, after=0)")
    assert found == "[batch, time, width, 2]"


def test_an_image_by_hand() -> None:
    program = tiny([PATCHES, "y = x * mean(p)"], "{}").program()
    values = computed(program)
    named = {name: values[value] for value, name in program.names.items() if value in values}
    x = next(values[p.value] for p in program.inputs)
    wide = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    wanted = np.lib.stride_tricks.sliding_window_view(wide, (2, 3), (1, 2))
    np.testing.assert_array_equal(named["p"], wanted)


def test_what_is_put_together_again_has_counted_each_entry_once_a_window() -> None:
    lines = [
        "p = windows(x, axes=[1], size=2, padding=1)",
        "z = overlap_add(p, axes=[1], size=2, padding=1)",
        "y = x + z",
    ]
    program = tiny(lines).program()
    values = computed(program)
    named = {name: values[value] for value, name in program.names.items() if value in values}
    x = next(values[p.value] for p in program.inputs)
    np.testing.assert_allclose(named["z"], 2 * x, rtol=1e-15)


@pytest.mark.parametrize(
    "equation",
    [
        "z = windows(x ** 2, axes=[1, 2], size=[2, 3], stride=1, dilation=1, padding=1)",
        "z = overlap_add(windows(x ** 2, axes=[1, 2], size=2, padding=1), axes=[1, 2], size=2)",
        "z = max(windows(x, axes=[1, 2], size=2, padding=1, lowest=1), axis=[3, 4])",
        "z = windows(tanh(x), axes=[2], size=2, stride=3, length=[1], after=0) ** 2",
    ],
)
def test_derivatives_agree_with_the_complex_step(equation: str) -> None:
    spec = tiny([equation, "y = x * mean(z * z)"])
    assert complex_step_gap(Case(spec, {}, 2, 3)) <= ALLOWED


def test_a_wrong_derivative_is_seen_by_the_complex_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the rule of a sum of windows forgets the padding."""
    right = rules.RULES["windows"]

    def wrong(r, node, g):
        before = {**node.attributes, "padding": node.attributes["after"], "after": (Dim(0),)}
        right(r, type(node)(node.op, node.inputs, node.outputs, before, node.body, node.place), g)

    monkeypatch.setitem(rules.RULES, "windows", wrong)
    spec = tiny(
        [
            "z = windows(x ** 2, axes=[1], size=2, padding=0, after=1)",
            "y = x * mean(z * x[:, :, None])",
        ]
    )
    with pytest.raises(HarnessError, match="complex step"):
        complex_step_gap(Case(spec, {}, 2, 3))


def test_a_backend_that_has_one_needs_the_other_for_gradients() -> None:
    assert (
        offers_needed(["windows"]) == {"windows", "overlap_add"} == offers_needed(["overlap_add"])
    )


def test_windows_over_time_are_held_against_the_arrays(wording: Wording) -> None:
    spec = tiny(["z = windows(x, axes=[1], size=2, stride=2, length=3)", "y = x * mean(z)"])
    program = spec.program()
    for time in (6, 7):
        check_room(program, {"batch": 2, "time": time})
    for time in (5, 8):
        with wording.raises(UsageError):
            check_room(program, {"batch": 2, "time": time})


def test_a_grouped_convolution_is_an_equation() -> None:
    layers = "{cell: {layer: grouped, groups: 2, each: 2, units: 2, kernel: 2}}"
    overrides = {("layer", "grouped"): GROUPED}
    lines = ["z = cell(concat([x[..., :2], x[..., 2:4]], axis=-1))", "y = x * mean(z)"]
    program = tiny(lines, layers, overrides=overrides).program()
    values = computed(program)
    named = {name: values[value] for value, name in program.names.items() if value in values}
    x, w = values[program.inputs[0].value], values[program.parameters[0].value]
    rows = np.concatenate([x[:, :-1], x[:, 1:]], -1).reshape(2, 2, 2, 2, 2)
    wanted = np.einsum("btkgc,gkcu->btgu", rows, w.reshape(2, 2, 2, 2)).reshape(2, 2, 4)
    np.testing.assert_allclose(named["cell/y"], wanted, rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("windows(x, size=2)", "axes= ... size= ... windows(x"),
        ("windows(x, axes=[2, 1], size=2)", ""),
        ("windows(x, axes=[1, 1], size=2)", ""),
        ("windows(x, axes=[], size=2)", ""),
        ("windows(x, axes=[3], size=2)", "3 ... 3"),
        ("windows(x, axes=[1, 2], size=[2])", "2 ... 1"),
        ("windows(x, axes=[1], size=0)", "1 ... 0"),
        ("windows(x, axes=[1], size=2, stride=0)", "1 ... 0"),
        ("windows(x, axes=[1], size=2, stride=1.5)", ""),
        ("windows(x, axes=[1], size=2, padding=tall)", "'tall'"),
        ("windows(x, axes=[1], size=2, lowest=0)", "1"),
        ("windows(x, axes=[1], size=2, step=1)", "'step'"),
        ("windows(x, axes=[1], size=2, stride=2)", "2 ... 2 *"),
        ("windows(x, axes=[2], size=5)", "1"),
        ("windows(x, axes=[2], size=3, length=3)", "4 ... 3 ... 2"),
        ("windows(x, axes=[2], size=3, length=1)", "4 ... 1 ... 2"),
        ("windows(arange(time), axes=[0], size=2)", ""),
        ("overlap_add(x, axes=[1], size=3)", "1 ... [3]"),
        ("overlap_add(x, axes=[1], size=width, length=time)", "4"),
    ],
)
def test_a_message_says_what_was_found_and_what_is_allowed(
    call: str, message: str, wording: Wording
) -> None:
    with wording.raises(SpecError, message) as raised:
        tiny([f"z = {call}", "y = x * mean(z)"]).program()
    assert raised.value.place is not None


@pytest.mark.parametrize(
    ("stride", "allowed"), [(1.5, "an integer .* found 1.5"), (0, "at least 1, .* 0;")]
)
def test_an_attribute_that_is_no_whole_number_is_refused(stride: float, allowed: str) -> None:
    layers = "{cell: {layer: conv1d, units: 2, kernel: 2, stride: STRIDE}}"
    with pytest.raises(SpecError, match=f"stride'? must be {allowed}"):
        tiny(["z = cell(x)", "y = x * mean(z)"], layers.replace("STRIDE", str(stride))).program()
