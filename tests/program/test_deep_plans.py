"""Planning a model of twice the depth is twice the work, whatever its blocks are."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from harness.language.model import Spec, load_spec
from harness.program.plan import training_plan

MODEL = """
model: deep
summary: Blocks of one kind.
source: a test
sizes: {nodes: 5, EDGESfeatures: 6, depth: 2}
inputs:
  x: {shape: [batch, nodes, features]}
INPUTS
layers:
  blocks: {layer: block, repeat: depth}
equations: |
  y = blocks(GIVEN)
loss: mean(y * y)
optimizer: {optimizer: adam, learning_rate: 0.01}
"""
BLOCK = """
layer: block
summary: What a residual connection goes around.
source: a test
inputs:
  x: [batch, nodes, features]
INPUTS
layers:
  norm: {layer: layer_norm}
LAYERS
equations: |
  h = norm(x)
  y = x + RESULT
output: y
"""
INPUTS = {
    "sender": "{shape: [edges], index: nodes}",
    "receiver": "{shape: [edges], index: nodes}",
    "mask": "{shape: [batch, nodes], boolean: true}",
}
# The layers of a block, and what it adds to x.
BLOCKS = {
    "convolution of a graph": (
        "inner: {layer: graph_convolution, units: features, activation: relu}",
        "inner(h, sender, receiver)",
    ),
    "recurrence": ("inner: {layer: gru, units: features}", "inner(h)"),
    "recurrence from both ends": (
        "inner: {layer: masked_bidirectional_lstm, units: 4}; "
        "back: {layer: dense, units: features}",
        "back(inner(h, mask))",
    ),
    "selective scan": (
        "inner: {layer: mamba_block, inner: 4, kernel: 3, states: 2}",
        "inner(h)",
    ),
    "attention with a mask": (
        "inner: {layer: masked_attention, heads: 2, head: 3}",
        "inner(h, mask)",
    ),
    "experts": ("inner: {layer: mixture_of_experts, experts: 3, chosen: 2, wide: 4}", "inner(h)"),
    "across the nodes": (
        "inner: {layer: dense, units: nodes}",
        "permute_dims(inner(permute_dims(h, axes=[0, 2, 1])), axes=[0, 2, 1])",
    ),
    "a convolution": ("inner: {layer: causal_conv1d, kernel: 3}", "inner(h)"),
    "in every order": ("", "permute_dims(sort(permute_dims(h, axes=[1, 2, 0])), axes=[2, 0, 1])"),
    "what is noisy": ("inner: {layer: dropout}", "inner(cumsum(h, axis=1))"),
}


def written(folder: Path, layers: str, result: str) -> Spec:
    given = [name for name in INPUTS if name in result]
    words = {
        "LAYERS": "\n".join(f"  {line}" for line in layers.split("; ")),
        "RESULT": result,
        "INPUTS": "\n".join(f"  {name}: {INPUTS[name]}" for name in given),
        "GIVEN": ", ".join(["x", *given]),
        "EDGES": "edges: 6, " if "sender" in given else "",
    }
    (folder / "layers").mkdir()
    for path, text in (("layers/block.yaml", BLOCK), ("deep.yaml", MODEL)):
        for word, meant in words.items():
            text = text.replace(word, meant)
        (folder / path).write_text(text, encoding="utf-8")
    return load_spec(str(folder / "deep.yaml"), (folder,))


def calls(spec: Spec, depth: int) -> int:
    """How many functions are called to plan a training."""
    program = spec.program("training", depth=depth)
    sizes = {**program.sizes, "batch": 3, "time": 4}
    found = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal found
        found += event == "call"

    sys.setprofile(count)
    try:
        training_plan(program, spec.update, sizes, "float32", (), learning_rate=0.1)
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_that_are_added_are_the_same_work_each(tmp_path: Path, kind: str) -> None:
    spec = written(tmp_path, *BLOCKS[kind])
    few, more, most = (calls(spec, depth) for depth in (2, 4, 8))
    assert most - more <= 2.2 * (more - few)
