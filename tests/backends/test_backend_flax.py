"""Layers of Flax agree with their definitions, in an environment that has Flax beside the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from image_model import IMAGES
from test_transformer_natives import MODEL

import harness

PYTHON = os.environ.get("HARNESS_FLAX", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="HARNESS_FLAX names no Python that has Flax")
RECURRENT = """\
model: recurrent
summary: Layers of sequences that Flax has as its own, and others.
source: Made for tests.
sizes: {words: 7, units: 4}
inputs:
  word: {shape: [batch, time], index: words}
layers:
  embed: {layer: embedding, rows: words, units: units}
  norm: {layer: batch_norm, epsilon: 0.01, momentum: 0.9}
  memory: {layer: lstm, units: units, gate: hard_sigmoid_fifth}
  long: {layer: lstm, units: units, activation: softplus}
  both: {layer: bidirectional_lstm, units: units}
  plain: {layer: simple_rnn, units: units, activation: relu}
  bare: {layer: simple_rnn_without_bias, units: units}
  gated: {layer: gru_reset_after, units: units}
  out: {layer: unembedding, rows: words}
  top: {layer: dense, bias: false, units: words, activation: log_softmax}
equations: |
  h = gated(bare(plain(both(long(memory(norm(embed(word))))))))
  y = out(h) + top(h)
targets:
  target: {shape: [batch, time], index: words}
loss: mean(sparse_cross_entropy(y, target))
optimizer: {optimizer: sgd, learning_rate: 0.1}
"""
NNX = "flax.nnx."
NORMS = {
    "centred": f"{NNX}LayerNorm",
    "scaled": f"{NNX}RMSNorm",
    "grouped": f"{NNX}GroupNorm",
    "place": f"{NNX}Embed",
    **dict.fromkeys(("exact", "near", "swish"), f"{NNX}Linear"),
}
# By model and dtype: the layers that are Flax's.
OWN: Mapping[tuple[str, str], Mapping[str, str]] = {
    (RECURRENT, dtype): {
        "embed": f"{NNX}Embed",
        "norm": f"{NNX}BatchNorm",
        "long": f"{NNX}OptimizedLSTMCell",
        "both": f"{NNX}Bidirectional",
        **dict.fromkeys(("plain", "bare"), f"{NNX}SimpleCell"),
        "top": f"{NNX}Linear",
    }
    for dtype in ("float32", "float64")
} | {
    (MODEL, "float32"): {
        **NORMS,
        **dict.fromkeys(("attend", "every", "among", "across", "bare"), f"{NNX}MultiHeadAttention"),
    },
    # The softmax of its attention is float32's.
    (MODEL, "float64"): NORMS,
    (IMAGES, "float64"): {
        **dict.fromkeys(("conv", "deep", "tall", "near", "line"), f"{NNX}Conv"),
        "up": f"{NNX}ConvTranspose",
        **dict.fromkeys(("even", "inner"), f"{NNX}avg_pool"),
        "most": f"{NNX}max_pool",
        "out": f"{NNX}Linear",
    },
}


@pytest.mark.parametrize(
    ("text", "dtype"), OWN, ids=[f"{text.split()[1]}-{dtype}" for text, dtype in OWN]
)
def test_what_flax_has_agrees_with_the_equations(text: str, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / f"{text.split()[1]}.yaml"
    path.write_text(text, encoding="utf-8")
    report = harness.check(
        path,
        "flax",
        dtypes=dtype,
        checks=["values", "cotangents", "training", "carried-state"],
        pythons={"flax": PYTHON},
    )
    (result,) = report.results
    assert report.exit_code == 0, str(report)
    own = {name: label for name, label in result.layers.items() if label.startswith(NNX)}
    assert own == OWN[text, dtype]


def test_a_notebook_system_passes_every_check() -> None:
    report = harness.check(
        "lesson6/sequence_rnn", "flax", dtypes="float32", pythons={"flax": PYTHON}
    )
    (result,) = report.results
    assert report.exit_code == 0, str(report)
    assert f"{NNX}SimpleCell" in result.layers.values()


def test_in_a_narrow_dtype_it_is_the_jax_backend() -> None:
    report = harness.check(
        "gpt", "flax", dtypes="bfloat16", checks="values", pythons={"flax": PYTHON}
    )
    (result,) = report.results
    assert report.exit_code == 0, str(report)
    found = set(result.layers.values()) - {"equations"}
    assert found
    assert not [label for label in found if "flax" in label]
