"""Recurrent layers with two biases and with none, in every format."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_round_trip import NEEDS, assert_round_trip

import harness

RECURRENT = """\
model: recurrent
summary: Recurrent layers with two biases and with none.
source: Made for tests.
sizes: {features: 3, hidden: 4, classes: 3}
inputs:
  x: {shape: [batch, time, features]}
layers:
  two: {layer: lstm, units: hidden, second_bias: true}
  bare: {layer: lstm, units: hidden, bias: false}
  both: {layer: bidirectional_lstm, units: hidden, second_bias: true}
  gru: {layer: gru_reset_after, units: hidden, bias: false}
  out: {layer: dense, units: classes}
equations: logits = out(last(gru(both(bare(two(x))))))
"""


@pytest.mark.parametrize("format_", NEEDS)
def test_outputs_are_the_oracles_and_weights_come_back(format_: str, tmp_path: Path) -> None:
    path = tmp_path / "recurrent.yaml"
    path.write_text(RECURRENT, encoding="utf-8")
    assert_round_trip(format_, harness.load(path), tmp_path, ((3, 4), (1, 1)))
