"""Layers of layers with parameters and noise of their own, in every format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from export_round_trip import NEEDS, assert_round_trip, import_module, torch_module
from sampling import sampled
from scaled_model import scaled
from wording import Wording

from harness.language.model import Spec, load_spec


@pytest.mark.parametrize("format_", sampled(NEEDS, ("torch",)))
def test_outputs_are_the_oracles_and_weights_come_back(format_: str, tmp_path: Path) -> None:
    assert_round_trip(format_, scaled(), tmp_path, ((3, 4), (1, 1)))


def test_a_module_of_torch_trains_them_and_draws_their_noise(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    module = torch_module(scaled(), path, "scaled_module")
    made = module.Scaled(torch.float64)
    made.load_state_dict(torch.load(path, weights_only=True))
    names = dict(made.named_parameters())
    assert {"stem.token", "blocks_0.scale", "blocks_1.shift", "blocks_1_up.weight"} <= set(names)
    x = torch.ones(400, 2, 3, dtype=torch.float64)
    made.train()
    _, _, kept = made.blocks_0(torch.ones(400, 3, 4, dtype=torch.float64))
    assert kept.shape == (400, 1, 1)
    assert kept.unique().tolist() == [0.0, 1.0]
    made(x)["y"].square().mean().backward()
    assert all(bool(value.grad.any()) for value in names.values())
    made.eval()
    assert torch.equal(made(x)["y"], made(x)["y"])


# The blocks share the mask and the distances, and each has weights and moving statistics.
BIASED = """\
layer: biased
summary: A mean over time that prefers near steps, and a normalisation.
source: Made for a test.
inputs:
  x: {shape: [batch, time, features]}
  mask: {shape: [batch, time], boolean: true}
parameters:
  slope: {shape: [], init: ones}
layers:
  norm: {layer: batch_norm}
  up: {layer: dense, units: 5}
  down: {layer: dense, units: features, bias: false}
  drop: {layer: dropout, keep: 0.5}
equations: |
  far = abs(astype(arange(time)) - astype(arange(time)[:, None]))
  y = x + drop(norm(softmax(where(mask[:, None], slope * far, -100)) @ down(up(x))))
output: y
"""
MASKED = """\
model: masked
summary: Blocks with a mask.
source: Made for a test.
inputs:
  x: {shape: [batch, time, 3]}
  lengths: {shape: [batch], index: 9}
layers:
  blocks: {layer: biased, repeat: 3}
equations: y = blocks(x, arange(time) < lengths[:, None])
outputs: [y]
"""


def test_jax_has_one_function_for_blocks_that_share_values(tmp_path: Path) -> None:
    spec = load_spec("masked", overrides={("model", "masked"): MASKED, ("layer", "biased"): BIASED})
    assert_round_trip("jax", spec, tmp_path, ((3, 4),))
    module = import_module(tmp_path / "model.npz", "masked_functions")
    params, constants = module.load(tmp_path / "model.npz")
    assert {name for group in params["blocks"].values() for name in group} == {
        *("slope", "norm", "up", "down"),
    }
    assert params["blocks"]["2"]["norm"].keys() == {"gamma", "beta"}
    assert constants["blocks"]["2"]["norm"].keys() == {"moving_mean", "moving_variance"}
    source = (tmp_path / "model.py").read_text()
    assert re.findall(r"\ndef (\w+)", source) == [
        *("load", "dense", "dense_without_bias", "batch_norm", "biased", "apply"),
    ]
    assert "range(3)" in source


# Two losses are weighed by what nothing else reads.
WEIGHED = """\
model: weighed
summary: A class and a number, with weights of both losses that are learned.
source: Kendall, Gal and Cipolla (2018), for a test.
sizes: {features: 3, classes: 4}
inputs:
  x: {shape: [batch, features]}
parameters:
  weights: {shape: [2], init: zeros}
layers:
  kind: {layer: dense, units: classes}
  amount: {layer: dense, units: 1}
equations: |
  logits = kind(x)
  value = amount(x)[:, 0]
targets:
  label: {shape: [batch], index: classes}
  number: {shape: [batch]}
loss: |
  (exp(-weights[0]) * mean(sparse_cross_entropy(logits, label))
  + exp(-weights[1]) * mean(squared_error(value, number)) + sum(weights))
optimizer: {optimizer: adam, learning_rate: 0.01}
"""


@pytest.mark.parametrize("format_", sampled(NEEDS, ("torch",)))
def test_what_only_the_loss_reads_is_kept(format_: str, tmp_path: Path, wording: Wording) -> None:
    """A Keras model has no layers but those of its outputs: it says what to write."""
    text, equation = WEIGHED, "  value = amount(x)[:, 0]\n"
    if format_ == "keras":
        with wording.raises(AssertionError, "1 *"):
            assert_round_trip(format_, weighed(text), tmp_path, ((3, 1), (1, 1)))
        text = text.replace(equation, f"{equation}  kept = 1 * weights\n")
    assert_round_trip(format_, weighed(text), tmp_path, ((3, 1), (1, 1)))


def weighed(text: str) -> Spec:
    return load_spec("weighed", overrides={("model", "weighed"): text})
