"""A small model with every kind of noise: its own noise, noise in layers, masks, and lengths."""

from __future__ import annotations

from harness.language.model import Spec, load_spec

NOISY = """
model: noisy
summary: Noise in a model and in its layers, of rows that end where they end.
source: A test.
sizes: {features: 3, hidden: 4, latent: 2}
inputs:
  x: {shape: [batch, time, features]}
  lengths: {shape: [batch], at_most: time}
  kept: {shape: [batch, time], boolean: true}
noise:
  jitter: {shape: [batch, features], law: {uniform: {low: 0.5, high: 1.5}}}
layers:
  drop: {layer: dropout, keep: 0.75}
  rnn: {layer: zoneout_lstm, units: hidden}
  center: {layer: dense, units: latent}
  spread: {layer: dense, units: latent}
  sample: {layer: gaussian_sample}
  out: {layer: dense, units: features}
equations: |
  inside = where(kept & (arange(time)[None, :] < lengths[:, None]), 1, 0)
  h = last(rnn(drop(x * inside[:, :, None])))
  z = sample(center(h), spread(h))
  y = out(drop(z)) * jitter
targets:
  target: {shape: [batch, features]}
loss: mean(squared_error(y, target))
optimizer: {optimizer: adam, learning_rate: 0.01}
training:
  batch: 4
  shuffle: true
  phases:
    - {epochs: 1, learning_rate: 0.01}
"""


def noisy(text: str = NOISY) -> Spec:
    """Load the model from its text."""
    return load_spec("noisy", overrides={("model", "noisy"): text})
