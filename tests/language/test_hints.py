"""What is said to people who write what Python, numpy or a framework has."""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import Place, SpecError
from harness.language.expressions import parse_expression
from harness.language.hints import shipped_hints
from harness.language.library import Library
from harness.language.model import load_spec

INSTEAD = shipped_hints().functions

SAID = [
    ("mean(x, 1)", "1 ... 2 ... mean(x, axis=-1)"),
    ("cumsum(x, 1)", "axis= ... cumsum(x, axis=1)"),
    ("sort(x, 1)", "1 ... 2 ... sort(x, axis=-1)"),
    ("max(x, 0)", "max(x, axis=-1) ... maximum(a, b)"),
    ("softmax(x, -1)", "2 ... axis="),
    ("relu(x, 1)", "2"),
    ("0 * exp(x, 1)", "1 ... 2"),
    ("concat(x, x)", "concat([a, b], axis=-1)"),
    ("concat([x, x], -1)", "concat([a, b], axis=-1)"),
    ("pi * x", "'pi' ... 3.141592653589793"),
    ("arctan(x)", "'arctan'"),
    ("x % 2", "a - b * floor(a / b) ... a % b"),
    ("x * arange(time)[:, None]", "[time, 1]"),
    ("np.exp(x)", "exp(...) ... '.exp'"),
    ("F.cross_entropy(x, x)", "mean(sparse_cross_entropy(logits"),
    ("nn.functional.relu(x)", "relu(x) ... '.functional'"),
    ("x^2", "** ... != ... '^'"),
    ("fc(x)", "'fc'"),
    ("softmx(x)", "'softmx' ... 'softmax'"),
    ("3 @ x", "@ ... *"),
]


@pytest.mark.parametrize(("expression", "told"), SAID, ids=[e for e, _ in SAID])
def test_a_message_says_what_to_write(expression: str, told: str, wording: Wording) -> None:
    with wording.raises(SpecError, told):
        tiny([f"y = {expression}"]).program("training")


def test_a_tensor_is_not_taken_apart_by_names(wording: Wording) -> None:
    with wording.raises(SpecError, "a = x[0]"):
        tiny(["a, y = x"])


def test_a_name_that_is_taken_is_told_so(wording: Wording) -> None:
    with wording.raises(SpecError):
        tiny(["y = 2 * x", "y = y + 1"])


# Of one tensor x [batch, time, width] of positive numbers -> what numpy makes of it.
COMPUTED = {
    "upsample": lambda x: np.repeat(x, 2, axis=1),
    "reciprocal": np.reciprocal,
    "erfc": lambda x: 1 - np.vectorize(math.erf)(x),
    "linspace": lambda x: np.linspace(0, 1, x.shape[-1]),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_a_hint_says_to_write_is_it(name: str) -> None:
    text = INSTEAD[name].removeprefix("write ").partition(" for ")[0].partition(", where")[0]
    program = tiny([f"z = {text}", "y = 2 * x"]).program("training")
    values, (x,) = computed(program), program.inputs
    (z,) = (values[p.value] for p in program.outputs if p.name == "z")
    np.testing.assert_allclose(z, COMPUTED[name](values[x.value]), rtol=1e-14)


LAYER = """\
layer: own
summary: Of a test.
source: Of a test.
inputs: {x: [...]}
attributes: {f: WHAT}
equations: y = f(x)
output: y
"""


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("none", "'none' ... 'linear'"),
        ("1/2", "'size' ... '1/2'"),
        ("rulu", "'rulu' ... 'relu'"),
    ],
)
def test_an_attribute_that_is_no_function_says_what_it_may_be(
    what: str, told: str, wording: Wording
) -> None:
    overrides = {("layer", "own"): LAYER.replace("WHAT", what)}
    with wording.raises(SpecError, told):
        tiny(["y = o(x)"], "{o: {layer: own}}", overrides=overrides).program("training")


def test_axes_may_stand_in_round_brackets() -> None:
    square, round_ = (
        tiny([f"y = x - mean(x, axis={axes}, keepdims=true)"]).program("training")
        for axes in ("[1, 2]", "(1, 2)")
    )
    assert square.nodes[0].attributes == round_.nodes[0].attributes


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("square", "'square' ... x ** 2 ... functions/square.yaml ... --specs"),
        ("swish", "'swish' ... silu(x)"),
        ("rellu", "'rellu' ... 'relu'"),
    ],
)  # fmt: skip
def test_an_attribute_that_names_no_function_is_told_what_to_write(
    function: str, told: str, wording: Wording
) -> None:
    with wording.raises(SpecError, told):
        tiny(
            ["y = own(x)"],
            layers=f"{{own: {{layer: dense, units: width, activation: {function}}}}}",
        )


# Some hints are words, and not what to write.
WRITTEN = [
    name
    for name, hint in INSTEAD.items()
    if hint.startswith("write ") and not hint.startswith("write it with")
]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_hint_says_to_write_can_be_read(name: str) -> None:
    text = (
        INSTEAD[name]
        .removeprefix("write ")
        .partition(" for ")[0]
        .partition(", which")[0]
        .partition(", and")[0]
    )
    for each in text.removeprefix("concat of expand_dims, as in ").split("; ")[:1]:
        parse_expression(each.partition("indices = ")[2] or each, partial(Place, "hint"))


SPEC = """\
model: tiny
summary: Some words, and the class of them.
source: Made for a test.
sizes: {vocab: 9, hidden: 4}
inputs:
  words: {shape: [batch, time], index: vocab}
layers:
  embed: {layer: embedding, rows: vocab, units: hidden}
  rnn: {layer: lstm, units: hidden}
  drop: {layer: dropout, keep: 0.8}
  out: {layer: dense, units: 3}
equations: |
  y = rnn(embed(words))
  logits = out(drop(last(y)))
targets:
  label: {shape: [batch], index: 3}
loss: mean(sparse_cross_entropy(logits, label))
optimizer: {optimizer: sgd, learning_rate: 0.1}
"""
# What is right -> what people write in its place, and what they are told, with the place of it.
MISTAKES = [
    ("sparse_cross_entropy(", "cross_entropy(", "17:12: ", "; sparse_cross_entropy"),
    ("keep: 0.8", "rate: 0.2", "10:26: ", "keep: 0.8 ... 1 - rate"),
    ("keep: 0.8", "p: 0.1", "10:26: ", "keep: 0.9 ... 1 - p"),
    ("layer: lstm", "layer: bilstm", "9:16: ", "'bilstm' ... bidirectional_lstm"),
    ("layer: lstm", "layer: lstmm", "9:16: ", "'lstm' ... --layers"),
    ("layer: lstm", "layer: zzz", "9:16: ", "'zzz' ... avg_pool"),
    ("words: {shape: [batch", "words: {shape: [32", "17:12: ", "32"),
    ("index: vocab}", "dtype: int64}", "6:33: ", "'index: SIZE'"),
    ("words, and", "words: and", "2:20: ", ""),
    ("model: tiny", "model: my tiny one", "1:8: ", "my_tiny_one"),
    ("y = rnn", "y, c = rnn", "13:3: ", "y ... rnn(...)"),
    ("out(drop(", "fc(drop(", "14:12: ", ""),
]


@pytest.mark.parametrize(("right", "written", "place", "told"), MISTAKES, ids=lambda v: v[:16])
def test_what_newcomers_write_is_told_what_to_write(
    right: str, written: str, place: str, told: str, tmp_path: Path, wording: Wording
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC.replace(right, written, 1), "utf-8")
    with pytest.raises(SpecError) as error:
        load_spec(str(path)).program("training")
    assert f"tiny.yaml:{place}" in str(error.value)
    wording(error.value, told)


def test_a_folder_adds_hints_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "hints.yaml").write_text(
        "functions: {'shift, lag': 'write x[:, :-1]', roll: none}\n"
        "renamed_attributes: {n_units: units}\n"
        "definitions: {fullyconnected: dense}\n"
    )
    hints = Library((tmp_path,)).hints
    assert hints.functions["lag"] == "write x[:, :-1]"
    assert hints.functions["roll"] == "none"
    assert hints.functions["reshape"] == INSTEAD["reshape"]
    for layer, told in (
        ("layer: dense, n_units: width", "is 'units'"),
        ("layer: FullyConnected", "write dense"),
    ):
        with pytest.raises(SpecError, match=re.escape(told)):
            tiny(["y = own(x)"], layers=f"{{own: {{{layer}}}}}", folders=[tmp_path])
    with pytest.raises(SpecError, match="'shift': write x"):
        tiny(["y = shift(x)"], folders=[tmp_path])


def test_a_wrong_file_of_hints_is_told_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "hints.yaml").write_text("function: {shift: write x}\n")
    with pytest.raises(SpecError, match=r"hints.yaml:1:1: .*'function'"):
        tiny(["y = shift(x)"], folders=[tmp_path])
