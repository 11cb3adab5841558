"""The outputs that a model declares with the key ``outputs``."""

from __future__ import annotations

from typing import Any

from harness.checking.explain import ModelExplanation
from harness.language.model import Spec, fingerprint, load_spec

MODEL = """\
model: two_layers
summary: Two layers, of which only the second gives an output.
source: Made for a test.
sizes: {width: 3, units: 4}
inputs:
  x: {shape: [batch, time, width]}
layers:
  cell: {layer: lstm, units: units}
  out: {layer: dense, units: width}
equations: |
  states, h, c = cell(x)
  hidden = states + c[:, None]
  logits = out(hidden)
outputs: [logits]
targets:
  target: {shape: [batch, time, width]}
loss: mean(squared_error(logits, target)) + 0.01 * mean(hidden ** 2)
"""


def load(text: str) -> Spec:
    return load_spec("two_layers", overrides={("model", "two_layers"): text})


def test_only_the_declared_names_are_outputs_and_the_others_keep_their_names() -> None:
    spec = load(MODEL)
    for program in spec.programs.values():
        assert [port.name for port in program.outputs] == ["logits"]
        assert {"states", "hidden"} <= set(program.names.values())
    explained: list[dict[str, Any]] = ModelExplanation(
        spec, spec.programs["training"], {"batch": 2, "time": 3}
    ).data()
    assert list(explained[0]["outputs"]) == ["logits"]


def test_the_outputs_have_the_order_of_the_list() -> None:
    spec = load(MODEL.replace("[logits]", "[logits, hidden]"))
    assert [port.name for port in spec.programs["training"].outputs] == ["logits", "hidden"]


def test_a_list_of_all_names_is_the_same_model_as_no_list() -> None:
    without = load(MODEL.replace("outputs: [logits]\n", ""))
    same = load(MODEL.replace("[logits]", "[states, h, c, hidden, logits]"))
    assert fingerprint(without) == fingerprint(same) != fingerprint(load(MODEL))
