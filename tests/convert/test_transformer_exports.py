"""Models with attention, chains of layers, tied tables, experts and graphs in every format: the
oracle's outputs, and weights that come back."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from export_round_trip import NEEDS, assert_round_trip
from sampling import sampled

import harness

OTHERS = ("bert", "vit", "mamba", "seq2seq_attention", "unet", "llama", "bilstm_tagger", "dlrm")
MODELS = ("gpt", "mlp", "moe", "gcn", *OTHERS)


@pytest.mark.parametrize(
    ("format_", "name"),
    sampled(
        product(NEEDS, MODELS),
        [
            *(("torch", name) for name in ("gpt", "unet", "moe", "gcn", "llama")),
            *(("jax", name) for name in ("bert", "moe", "gcn")),
            *(("keras", name) for name in ("mlp", "moe", "gcn")),
            *(("onnx", name) for name in ("mamba", "moe", "gcn")),
        ],
    ),
)
def test_outputs_are_the_oracles_and_weights_come_back(
    format_: str, name: str, tmp_path: Path
) -> None:
    assert_round_trip(format_, harness.load(name), tmp_path, ((3, 4), (1, 1), (2, 9)))
