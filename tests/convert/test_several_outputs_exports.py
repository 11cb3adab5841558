"""Layers with several outputs, in every format."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_round_trip import NEEDS, assert_round_trip
from sampling import sampled

from harness.language.model import Spec, load_spec

FLOW = """\
model: flow
summary: A chain of coupling layers, a coupling layer, and a scaled copy.
source: Made for a test.
inputs:
  x: {shape: [batch, 6]}
layers:
  flows: {layer: step, repeat: 3}
  final: {layer: affine}
  own: {layer: coupling}
equations: |
  z, total = flows(x, 0 * sum(x, axis=-1))
  scaled, d = final(z)
  w = relu(own(scaled))
  det = total + d
outputs: [w, det]
definitions:
  - layer: affine
    summary: A layer with parameters of its own.
    source: Made for a test.
    inputs: {x: [batch, features]}
    parameters:
      s: {shape: [features], init: {normal: {std: 0.3}}}
    equations: |
      y = x * exp(s)
      d = sum(s + 0 * x, axis=-1)
    output: [y, d]
  - layer: coupling
    summary: A coupling layer.
    source: Made for a test.
    inputs: {x: [batch, features]}
    layers:
      scale: {layer: dense, units: 3}
    equations: |
      s = tanh(scale(x[:, :3]))
      y = concat([x[:, 3:] * exp(s), x[:, :3]], axis=-1)
      log_det = sum(s, axis=-1)
    output: [y, log_det]
  - layer: step
    summary: A coupling layer that adds to the sum.
    source: Made for a test.
    inputs: {x: [batch, features], total: [batch]}
    layers:
      inner: {layer: coupling}
    equations: |
      y, d = inner(x)
      sum_so_far = total + d
    output: [y, sum_so_far]
"""


def flow() -> Spec:
    return load_spec("flow", overrides={("model", "flow"): FLOW})


@pytest.mark.parametrize("format_", sampled(NEEDS, ("jax",)))
def test_outputs_are_the_oracles_and_weights_come_back(format_: str, tmp_path: Path) -> None:
    assert_round_trip(format_, flow(), tmp_path, ((3, 4), (1, 1)))


def test_functions_of_jax_return_several_values(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    assert_round_trip("jax", flow(), tmp_path, ((3, 4),))
    (path,) = tmp_path.rglob("*.py")
    lines = [line.strip() for line in path.read_text().splitlines()]
    assert 'flows, flows_2 = step(params["flows"][str(number)], flows, flows_2)' in lines
    assert "return inner, total + inner_2" in lines
