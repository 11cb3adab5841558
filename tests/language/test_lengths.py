"""Lengths and masks as inputs: what they are drawn as, what is refused, and what a mask does."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import tiny
from wording import Wording

import harness
from harness.errors import SpecError, UsageError
from harness.language.model import Spec, load_spec
from harness.oracle.case import Case
from harness.program.dims import Dim

LAYER = """
layer: masked_rnn
summary: A recurrent layer whose state stays in long rows.
source: A test.
inputs:
  x: [batch, time, features]
  lengths: {shape: [batch], at_most: time}
attributes: {units: size}
parameters:
  W: {shape: [features, units], init: glorot_uniform}
  U: {shape: [units, units], init: orthogonal}
state:
  h: {shape: [batch, units]}
scan:
  over: {x_t: x}
  step: h = where(lengths[:, None] <= 2, tanh(x_t @ W + h @ U), h)
  output: h
"""
STEP = """
layer: masked_rnn
summary: A recurrent layer whose state stays where a mask is false.
source: A test.
inputs:
  x: [batch, time, features]
  mask: {shape: [batch, time], boolean: true}
attributes: {units: size}
parameters:
  W: {shape: [features, units], init: glorot_uniform}
  U: {shape: [units, units], init: orthogonal}
state:
  h: {shape: [batch, units]}
scan:
  over: {x_t: x, m_t: mask}
  step: h = where(m_t[:, None], tanh(x_t @ W + h @ U), h)
  output: h
"""
MODEL = """
model: tagger
summary: A label of every step, of rows that end where they end.
source: A test.
sizes: {features: 3, units: 4, labels: 5}
inputs:
  x: {shape: [batch, time, features]}
  lengths: {shape: [batch], at_most: time}
  valid: {shape: [batch, time], boolean: true}
layers:
  rnn: {layer: masked_rnn, units: units}
  out: {layer: dense, units: labels}
equations: |
  kept = astype(valid & (arange(time)[None, :] < lengths[:, None]))
  states, last_state = rnn(x, valid & (arange(time)[None, :] < lengths[:, None]))
  logits = out(states)
targets:
  target: {shape: [batch, time], index: labels}
loss: sum(kept * sparse_cross_entropy(logits, target)) / maximum(sum(kept), 1)
optimizer: {optimizer: sgd, learning_rate: 0.1}
"""


def model(text: str = MODEL, layer: str = STEP) -> Spec:
    return load_spec(
        "tagger", overrides={("model", "tagger"): text, ("layer", "masked_rnn"): layer}
    )


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(model(), {}, 4, 5)


def test_material_has_a_full_an_empty_and_a_shorter_row(case: Case) -> None:
    """Of one step, and in every other batch of half of them."""
    seen = set()
    for batch in (case.material, case.batch_of(4, 5), case.batch_of(3, 2)):
        valid, lengths = batch.inputs["valid"], batch.inputs["lengths"]
        # In other batches other rows are.
        first = int(np.flatnonzero(lengths == 0)[0]) - 1
        valid, lengths = np.roll(valid, -first, 0), np.roll(lengths, -first)
        time = valid.shape[1]
        assert lengths[:2].tolist() == [time, 0]
        assert lengths[2] in (1, (time + 1) // 2)
        seen.add(int(lengths[2]) > 1)
        assert valid.dtype == np.bool_
        assert valid[0].all()
        assert not valid[1].any()
        assert valid[2].sum() == (1 if lengths[2] == 1 else time // 2)
        assert valid[2, : valid[2].sum()].all()
    assert seen == {True, False}


def test_steps_after_the_end_change_nothing(case: Case) -> None:
    spec = model()
    given = {"parameters": case.material.parameters, "targets": case.material.targets}
    inputs = dict(case.material.inputs)
    inside = inputs["valid"] & (np.arange(5) < inputs["lengths"][:, None])
    first = harness.run(spec, "oracle", inputs=inputs, **given)
    inputs["x"] = np.where(inside[..., None], inputs["x"], 1e3)
    other = harness.run(spec, "oracle", inputs=inputs, **given)
    assert first.loss == other.loss
    np.testing.assert_array_equal(first.outputs["last_state"], other.outputs["last_state"])
    assert not first.outputs["last_state"][1].any()
    assert other.gradients["input.x"][~inside].any() == np.False_
    assert other.gradients["input.x"][inside].all()


def test_the_loss_is_the_mean_over_what_is_not_masked(case: Case) -> None:
    inputs, target = case.material.inputs, case.material.targets["target"]
    found = harness.run(
        model(),
        "oracle",
        parameters=case.material.parameters,
        inputs=inputs,
        targets={"target": target},
        want=("outputs", "loss"),
    )
    logits = found.outputs["logits"]
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    each = -np.log(np.take_along_axis(chances, target[..., None], -1))[..., 0]
    inside = inputs["valid"] & (np.arange(5) < inputs["lengths"][:, None])
    assert found.loss == pytest.approx(each[inside].mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("lengths", [6, 0, 1, 2], "input.lengths[0] ... 6 ... 0 ... 5"),
        ("lengths", [0, -1, 1, 2], "input.lengths[1] ... -1 ... 0 ... 5"),
        ("lengths", [0.0, 1.0, 1.0, 2.0], "input.lengths ... float64"),
        ("valid", np.ones((4, 5)), "input.valid ... float64"),
        ("valid", np.ones((4, 5), np.int64), "int64"),
    ],
)
def test_what_is_out_of_range_is_refused(
    case: Case, name: str, value: object, told: str, wording: Wording
) -> None:
    inputs = {**case.material.inputs, name: value}
    with pytest.raises(UsageError) as error:
        harness.run(model(), "oracle", inputs=inputs, want=("outputs",))
    wording.line(error.value, told)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("at_most: time}", "at_most: tim}", "'tim'"),
        ("at_most: time}", "at_most: time, index: labels}", "at_most"),
    ],
)
def test_a_wrong_declaration_is_refused(old: str, new: str, told: str, wording: Wording) -> None:
    with pytest.raises(SpecError) as error:
        model(MODEL.replace(old, new, 1))
    wording.line(error.value, told)


DATA = """
data:
  encoding: utf-8
  padding_index: 0
  windows: {length: 8, stride: 8}
  arrays:
    x: {zeros: true}
    lengths: {offset: 0}
    valid: {zeros: true}
    target: {offset: 0}
"""


def test_a_text_gives_no_lengths(wording: Wording) -> None:
    with wording.raises(SpecError, "'lengths'"):
        model(MODEL + DATA)


def test_a_layer_is_told_of_what_a_length_is_at_most(wording: Wording) -> None:
    text = MODEL.replace(
        "rnn(x, valid & (arange(time)[None, :] < lengths[:, None]))", "rnn(x, lengths)"
    )
    layer = LAYER
    assert model(text, layer).programs
    with wording.raises(SpecError, "1 ... 1"):
        model(text.replace("at_most: time", "at_most: labels"), layer)
    with wording.raises(SpecError):
        model(text.replace("rnn(x, lengths)", "rnn(x, valid[:, 0])"), layer)


@pytest.mark.parametrize(("key", "below"), [("index: 7", 7), ("at_most: 7", 8)])
def test_what_whole_numbers_stay_below_may_be_a_number(key: str, below: int) -> None:
    spec = tiny(
        ["y = x * take(mean(x, axis=[0, 1]), i)[:, None, None] + 0 * mean(astype(j))"],
        inputs=f"  i: {{shape: [batch], index: width}}\n  j: {{shape: [batch], {key}}}\n",
    )
    program = spec.program("training")
    (port,) = [p for p in program.inputs if p.name == "j"]
    assert program.type_of(port).bound == Dim(below)


def test_a_layer_may_say_the_number_that_an_index_stays_below(wording: Wording) -> None:
    text = (
        "layer: bits\nsummary: Of a test.\nsource: Of a test.\n"
        "inputs: {i: {shape: [...], index: 4}}\nequations: y = astype(i) / 4\noutput: y\n"
    )
    use = {("layer", "bits"): text}
    inputs = "  i: {shape: [batch, time], index: SIZE}\n"
    lines = ["y = x + bits(i)[:, :, None]"]
    layers = "{bits: {layer: bits}}"
    tiny(lines, layers, overrides=use, inputs=inputs.replace("SIZE", "4")).program("training")
    with wording.raises(SpecError, "4 ... 5"):
        tiny(lines, layers, overrides=use, inputs=inputs.replace("SIZE", "5")).program("training")
