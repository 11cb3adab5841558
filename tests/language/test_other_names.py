"""Names and forms that people know from frameworks, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
            "8:17: unknown layer 'nn.GRU'; write gru_reset_after for that of torch",
        ),
        ("LAYER", "GRU", "unknown layer 'GRU'; write gru_reset_after for that of torch"),
        ("LAYER", "nn.LSTM", "unknown layer 'nn.LSTM'; did you mean 'lstm'?"),
        ("LAYER", "torch.nn.Linear", "unknown layer 'torch.nn.Linear'; write dense"),
        ("LAYER", "keras.layers.BatchNormalization", "; write batch_norm"),
        (
            "units: half",
            "units: floor(half / 2)",
            "in place of a quotient declare a size of its own",
        ),
        ("units: half", "units: half // 2", "of a size declare the half as one of its own"),
        ("(y, label)", "(label, y)", "logits is declared as floats, found an index: label index"),
        ("rate: 0.1", "rate: 0.1, momentum: 0.9", "the optimizer with one is 'sgd_momentum'"),
        ("rate: 0.1", "rate: 0.1, weight_decay: 0.1", "the optimizer with one is 'adamw'"),
        ("  out: {", "\tout: {", "9:1: this is not YAML: a line begins with a tab; use spaces"),
    ],
)
def test_what_is_written_instead_is_named(
    tmp_path: Path, found: str, written: str, words: str
) -> None:
    file = tmp_path / "other.yaml"
    text = MODEL.replace(found, written)
    assert text != MODEL
    file.write_text(text if found == "LAYER" else text.replace("LAYER", "gru"), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(str(file))
    assert words in str(caught.value)
