"""A model with constants of its own, of a layer, of a layer of layers and of a loop."""

from __future__ import annotations

from harness.language.model import Spec, load_spec

CONSTANTS = """\
model: consts
summary: Constants of a model and of layers.
source: Made for a test.
sizes: {vocab: 5, offsets: 6}
inputs:
  i: {shape: [batch, time], index: vocab}
constants:
  rates: {shape: [4], value: [1.0, 0.5, 0.25, 0.125]}
  places: {shape: [vocab], index: offsets}
  shift: {shape: [4]}
parameters:
  bias_table: {shape: [offsets, 4], init: {normal: {std: 0.5}}}
layers:
  embed: {layer: embedding, rows: vocab, units: 4}
  scaled: {layer: fixed_scale, repeat: 2, start: 0.5}
  block: {layer: block}
  rnn: {layer: decay, units: 3}
  out: {layer: dense, units: vocab}
definitions:
  - layer: fixed_scale
    summary: A product with a vector that is not trained.
    source: Made for a test.
    inputs: {x: [..., features]}
    attributes: {start: 1.0}
    parameters:
      gamma: {shape: [features], init: ones}
    constants:
      scale: {shape: [features], init: {uniform: {low: start, high: 2}}}
    equations: |
      y = x * scale * gamma
    output: y
  - layer: block
    summary: A layer of layers with constants.
    source: Made for a test.
    inputs: {x: [..., features]}
    constants:
      order: {shape: [4], index: 4, value: [2, 0, 3, 1]}
      share: {shape: [], value: 0.5}
    layers:
      up: {layer: dense, units: features}
    equations: |
      moved = take(up(x), order, axis=-1)
      y = x + share * moved
    output: y
  - layer: decay
    summary: A loop that reads a constant.
    source: Made for a test.
    inputs: {x: [batch, time, features]}
    attributes: {units: size}
    parameters:
      W: {shape: [features, units], init: glorot_uniform}
    constants:
      keep: {shape: [units], init: {uniform: {low: 0.2, high: 0.8}}}
    state:
      h: {shape: [batch, units]}
    scan:
      over: {x_t: x}
      step: h = keep * h + x_t @ W
      output: h
equations: |
  x = embed(i) + take(bias_table, take(places, i, axis=0), axis=0)
  logits = out(tanh(rnn(block(scaled(x * rates + shift)))))
outputs: [logits]
targets:
  target: {shape: [batch, time], index: vocab}
loss: mean(sparse_cross_entropy(logits, target))
optimizer: {optimizer: adam, learning_rate: 0.01}
"""
NAMES = [
    *("own.rates", "own.places", "own.shift", "scaled.0.scale", "scaled.1.scale"),
    *("block.order", "block.share", "rnn.keep"),
]


def with_constants(text: str = CONSTANTS) -> Spec:
    """Load the model, or a changed text of it."""
    return load_spec("consts", overrides={("model", "consts"): text})
