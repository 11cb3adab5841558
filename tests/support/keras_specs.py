"""Models for keras_probe.py, with features that the built-in specs do not use."""

MIXED = """model: mixed
summary: The forms that no model of lesson 6 has.
source: none
sizes: {vocab: 6, factors: 3, units: 4}
inputs:
  chars: {shape: [batch, time], index: vocab}
state:
  h: {shape: [batch, units]}
layers:
  add: {layer: embedding, rows: vocab, units: factors}
  after: {layer: gru_reset_after, units: units}
  before: {layer: gru, units: units}
  memory: {layer: lstm, units: units, gate: hard_sigmoid_sixth}
  plain: {layer: simple_rnn, units: units}
  norm: {layer: batch_norm, momentum: 0.75, epsilon: 0.01}
  out: {layer: dense, units: vocab, activation: log_softmax}
equations: |
  a, h = after(add(chars), h=h)
  b = before(a)
  c = memory(b)
  d = plain(c)
  y = out(norm(last(d)))
targets:
  target: {shape: [batch], index: vocab}
loss: mean(sparse_cross_entropy(y, target))
optimizer: {optimizer: sgd}
"""
TINY = """model: tiny
summary: An embedding whose rows repeat, and one layer.
source: none
sizes: {vocab: 4, factors: 3}
inputs:
  chars: {shape: [batch, time], index: vocab}
layers:
  embed: {layer: embedding, rows: vocab, units: factors}
  out: {layer: dense, units: vocab, activation: softmax}
equations: y = out(embed(chars))
targets:
  target: {shape: [batch, time], index: vocab}
loss: mean(sparse_cross_entropy(y, target))
optimizer: {optimizer: OPTIMIZER}
"""
KINKS = """model: kinks
summary: Activations at their corners.
source: none
sizes: {units: 7}
inputs:
  x: {shape: [batch, units]}
layers:
  fifth: {layer: dense, units: units, activation: hard_sigmoid_fifth}
  sixth: {layer: dense, units: units, activation: hard_sigmoid_sixth}
  rectify: {layer: dense, units: units, activation: relu}
equations: |
  a = fifth(x)
  b = sixth(x)
  c = rectify(x)
targets:
  target: {shape: [batch, units]}
loss: sum(squared_error(a, target)) + sum(squared_error(b, target)) + sum(squared_error(c, target))
optimizer: {optimizer: sgd}
"""
LOSSES = """model: losses
summary: Losses of logits.
source: none
sizes: {classes: 4}
inputs:
  logits: {shape: [batch, classes]}
layers:
  out: {layer: dense, bias: false, units: classes}
equations: y = out(logits)
targets:
  target: {shape: [batch, classes]}
  number: {shape: [batch], index: classes}
loss: mean(cross_entropy(y, target)) + mean(sparse_cross_entropy(y, number))
optimizer: {optimizer: sgd}
"""
