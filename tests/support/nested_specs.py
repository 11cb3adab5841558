"""Specs of layers that consist of other layers, for tests."""

from __future__ import annotations

import re

import pytest

from harness.errors import SpecError
from harness.language.library import Library
from harness.language.model import Spec

BLOCK = """\
layer: block
summary: A block whose layers are others.
source: Made for a test.
inputs: {x: [batch, time, features]}
attributes: {wide: size, activation: tanh}
layers:
  mix: {layer: simple_rnn, units: features}
  up: {layer: dense, units: 2 * wide, activation: activation}
  down: {layer: dense, units: features}
equations: |
  h = x + mix(x)
  y = h + down(up(h))
output: y
"""
PAIR = """\
layer: pair
summary: Two blocks, the second called twice.
source: Made for a test.
inputs: {x: [batch, time, features]}
attributes: {wide: size}
layers:
  first: {layer: block, wide: wide, activation: relu}
  again: {layer: block, wide: 3}
equations: y = again(again(first(x)))
output: y
"""
MODEL = """\
model: nested
summary: Uses them.
source: Made for a test.
sizes: {width: 4, wide: 5, depth: 2}
inputs:
  x: {shape: [batch, time, width]}
layers:
  LAYERS
equations: |
  EQUATIONS
targets:
  target: {shape: [batch, time, width]}
loss: mean(squared_error(y, target))
optimizer: {optimizer: sgd, learning_rate: 0.125}
"""
CHAIN = "blocks: {layer: block, repeat: depth, wide: wide}"


def model(layers: str, equations: str = "y = blocks(x)") -> str:
    lines = equations.replace("\n", "\n  ")
    text = MODEL.replace("LAYERS", layers).replace("EQUATIONS", lines)
    unused = [n for n in ("wide", "depth") if not re.search(rf"\b{n}[,}}]", layers)]
    for name in unused:
        text = re.sub(rf", {name}: \d", "", text)
    return text


def loaded(text: str, **definitions: str) -> Spec:
    known = {"block": BLOCK, "pair": PAIR} | definitions
    overrides = {("model", "nested"): text} | {("layer", n): t for n, t in known.items()}
    library = Library((), overrides)
    return Spec(library, library.model("nested"))


def renamed(name: str, old: str, new: str) -> str:
    return BLOCK.replace("layer: block", f"layer: {name}").replace(old, new)


def refused(text: str, **definitions: str) -> str:
    with pytest.raises(SpecError) as caught:
        loaded(text, **definitions)
    return str(caught.value)
