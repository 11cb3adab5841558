"""Small, fast models: models with one layer, and models from equations that a test writes."""

from __future__ import annotations

import numpy as np
from places import SUPPORT

from harness.language.library import Library
from harness.language.model import load_spec
from harness.oracle import oracle

ARRAYS = {"batch": 2, "time": 3}
LIBRARY = Library()

SPOKEN = (SUPPORT / "odd_models" / "spoken.yaml").read_text(encoding="utf-8")
# A dense layer ``out`` of an input ``x``. A test appends the equations and all further sections.
TO_BE_WRITTEN = """\
model: odd
summary: What a test writes.
source: of these tests
inputs:
  x: {shape: [batch, 3]}
layers:
  out: {layer: dense, units: 2}
equations: |
"""
# A template in which a test fills in a name.
ONE_LAYER = """\
model: {name}
summary: One dense layer, so that a cell takes no time.
source: of these tests
sizes: {{features: 5, vocab: 4}}
inputs:
  x: {{shape: [batch, features]}}
layers:
  out: {{layer: dense, units: vocab}}
equations: |
  logits = out(x)
targets:
  target: {{shape: [batch], index: vocab}}
loss: mean(sparse_cross_entropy(logits, target))
optimizer: {{optimizer: sgd, learning_rate: 0.125}}
"""

SIZED = """\
model: sized
summary: Reads no more steps than a table has rows.
source: Made for a test.
sizes: {features: 3, rows: ROWS}
inputs:
  x: {shape: [batch, time, features]}
layers:
  place: {layer: learned_positions, context: rows}
equations: |
  y = EQUATION
"""

TINY = """\
model: tiny
summary: Uses one definition.
source: Made for a test.
sizes: {width: 4}
inputs:
INPUTS
layers:
LAYERS
equations: |
EQUATIONS
targets:
  target: {shape: [batch, time, width]}
loss: LOSS
"""


def sized(equation, rows):
    """Return a model over floats ``x`` [batch, time, 3] with a layer ``place`` of ``rows`` rows."""
    text = SIZED.replace("EQUATION", equation).replace("ROWS", str(rows))
    return load_spec("sized", overrides={("model", "sized"): text})


def tiny(
    equations,
    layers="{}",
    loss="mean(squared_error(y, target))",
    overrides=None,
    inputs="",
    folders=(),
):
    """Return a small model over floats ``x`` [batch, time, width] and further ``inputs``."""
    text = TINY.replace("INPUTS", "  x: {shape: [batch, time, width]}\n" + inputs)
    text = text.replace("layers:\nLAYERS", f"layers: {layers}")
    text = text.replace("EQUATIONS", "\n".join(f"  {line}" for line in equations))
    text = text.replace("LOSS", loss)
    if "vocab" in text:
        text = text.replace("width: 4", "width: 4, vocab: 5")
    return load_spec("tiny", folders, overrides={("model", "tiny"): text, **(overrides or {})})


def computed(program, seed=0):
    """Return every value of the program on random arrays, computed by the oracle."""
    generator = np.random.default_rng(seed)
    sizes, env = {**program.sizes, **ARRAYS}, {}
    ports = (program.inputs, program.targets, program.state, program.parameters)
    for port in (*(p for group in ports for p in group), *program.statistics):
        type_, shape = program.type_of(port), program.shape(port, ARRAYS)
        if type_.kind == "index":
            env[port.value] = generator.integers(0, type_.bound.resolve(sizes), shape)
        else:
            # The values are positive, and spread enough to reach the flat parts of bounded
            # functions.
            env[port.value] = np.abs(generator.normal(size=shape)) + 0.1
    return oracle.run(program.nodes, env, sizes)
