"""Layers that are given no floats, a table of positions say, in every format, in both dtypes."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_round_trip import NEEDS, assert_round_trip
from sampling import sampled

import harness

LAYERS = {
    # Nothing comes in, and there is no parameter.
    "sines": """\
inputs: {}
attributes: {width: size}
equations: y = sin(astype(arange(width)) / 3)
""",
    # An index comes in, and there is no parameter: it must not lend its dtype.
    "shares": """\
inputs: {i: {shape: [...], index: classes}}
equations: y = astype(i) / classes
""",
    # Nothing comes in, and there is one.
    "moves": """\
inputs: {}
attributes: {width: size}
parameters: {T: {shape: [width, width], init: glorot_uniform}}
equations: y = T
""",
}
MODEL = """\
model: bare
summary: Of a test.
source: Of a test.
sizes: {width: 5, classes: 3}
inputs:
  x: {shape: [batch, time, width]}
  i: {shape: [batch, time], index: classes}
layers:
  sines: {layer: sines, width: width}
  shares: {layer: shares}
  moves: {layer: moves, width: width}
  out: {layer: dense, units: classes}
equations: |
  table = moves()
  part = shares(i)
  y = out((x * sines() + part[:, :, None]) @ table)
targets:
  z: {shape: [batch, time, classes]}
loss: mean(squared_error(y, z))
"""


@pytest.mark.parametrize("format_", sampled(NEEDS, ("torch", "jax")))
def test_outputs_are_the_oracles_and_weights_come_back(format_: str, tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    for name, text in LAYERS.items():
        head = f"layer: {name}\nsummary: Of a test.\nsource: Of a test.\n"
        (tmp_path / "layers" / f"{name}.yaml").write_text(f"{head}{text}output: y\n")
    (tmp_path / "bare.yaml").write_text(MODEL)
    spec = harness.load(str(tmp_path / "bare.yaml"), [tmp_path])
    assert_round_trip(format_, spec, tmp_path, ((3, 4), (1, 1)))
