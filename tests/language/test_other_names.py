"""Names and forms that people know from frameworks, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from wording import Wording

from harness.errors import SpecError
from harness.language.model import load_spec

MODEL = """\
model: other
summary: One of a test.
source: A test.
sizes: {half: 4, classes: 3}
inputs:
  x: {shape: [batch, time, 5]}
layers:
  read: {layer: LAYER, units: half}
  out: {layer: dense, units: classes}
equations: |
  y = out(last(read(x)))
targets:
  label: {shape: [batch], index: classes}
loss: mean(sparse_cross_entropy(y, label))
optimizer: {optimizer: sgd, learning_rate: 0.1}
"""


@pytest.mark.parametrize(
    ("found", "written", "words"),
    [
        # gru is another function than the GRU of torch and Keras 3.
        (
            "LAYER",
            "nn.GRU",
            "8:17 ... layer 'nn.GRU' ... gru_reset_after ... torch",
        ),
        ("LAYER", "GRU", "layer 'GRU' ... gru_reset_after ... torch"),
        ("LAYER", "nn.LSTM", "layer 'nn.LSTM' ... 'lstm'"),
        ("LAYER", "torch.nn.Linear", "layer 'torch.nn.Linear'"),
        ("LAYER", "keras.layers.BatchNormalization", "batch_norm"),
        (
            "units: half",
            "units: floor(half / 2)",
            "",
        ),
        ("units: half", "units: half // 2", ""),
        ("(y, label)", "(label, y)", ""),
        ("rate: 0.1", "rate: 0.1, momentum: 0.9", "'sgd_momentum'"),
        ("rate: 0.1", "rate: 0.1, weight_decay: 0.1", "'adamw'"),
        ("  out: {", "\tout: {", "9:1 ... YAML"),
    ],
)
def test_what_is_written_instead_is_named(
    tmp_path: Path, found: str, written: str, words: str, wording: Wording
) -> None:
    file = tmp_path / "other.yaml"
    text = MODEL.replace(found, written)
    assert text != MODEL
    file.write_text(text if found == "LAYER" else text.replace("LAYER", "gru"), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(str(file))
    wording.line(caught.value, words)
