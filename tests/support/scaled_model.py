"""A model of blocks that have their own parameters and noise, in addition to nested layers."""

from __future__ import annotations

from harness.language.model import Spec, load_spec

SCALED = """\
layer: scaled
summary: Two dense layers beside what goes by them, scaled by channel and sometimes left out.
source: Made for a test.
inputs: {x: [batch, time, features]}
attributes: {wide: size, keep: 0.75, start: 0.5}
parameters:
  scale: {shape: [features], init: {constant: {value: start}}}
  shift: {shape: [features], init: zeros}
layers:
  up: {layer: dense, units: wide, activation: tanh}
  down: {layer: dense, units: features}
noise:
  kept: {shape: [batch, 1, 1], law: {bernoulli: {keep: keep}}}
equations: y = x + scale * down(up(x)) * (kept / keep) + shift
output: y
"""
STEM = """\
layer: stem
summary: A learned step before those of a dense layer.
source: Made for a test.
inputs: {x: [batch, time, channels]}
attributes: {units: size}
parameters:
  token: {shape: [units], init: ones}
layers:
  embed: {layer: dense, units: units}
equations: |
  e = embed(x)
  y = concat([token + 0 * e[:, :1], e], axis=1)
output: y
"""
MODEL = """\
model: scaled
summary: Uses them.
source: Made for a test.
sizes: {channels: 3, width: 4, wide: 5, depth: 2}
inputs:
  x: {shape: [batch, time, channels]}
layers:
  stem: {layer: stem, units: width}
  blocks: {layer: scaled, repeat: depth, wide: wide, init: {shift: {normal: {std: 0.5}}}}
  again: {layer: scaled, wide: 6, start: -2}
equations: y = again(again(blocks(stem(x))))
targets:
  target: {shape: [batch, width]}
loss: mean(squared_error(mean(y, axis=1), target))
optimizer: {optimizer: sgd, learning_rate: 0.125}
"""


def scaled(text: str = MODEL, **layers: str) -> Spec:
    """Load the model from its text, with other texts for some of its layers."""
    known = {"scaled": SCALED, "stem": STEM} | layers
    changed = {("layer", name): layer for name, layer in known.items()}
    return load_spec("scaled", overrides={("model", "scaled"): text} | changed)
