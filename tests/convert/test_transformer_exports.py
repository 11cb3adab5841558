"""Models with attention, chains of layers, tied tables, experts and graphs in every format: the
oracle's outputs, and weights that come back."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
from format_cases import ALLOWED, Case, assert_comes_back, outputs, written
from sampling import sampled

import harness
from harness.convert.formats import launch
from harness.worker.worker import Worker

NEEDS = {"torch": "torch", "jax": "jax", "keras": "keras", "onnx": "onnxruntime"}


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
    if find_spec(NEEDS[format_]) is None:
        pytest.skip(f"{NEEDS[format_]} is not installed")
    suffix = {"torch": ".pt", "jax": ".npz", "keras": ".keras", "onnx": ".onnx"}[format_]
    environment = {"KERAS_BACKEND": "tensorflow"} if format_ == "keras" else {}
    with Worker(launch(format_, environment=environment)) as worker:
        for dtype in ALLOWED:
            case, path = Case.of(harness.load(name), dtype), tmp_path / f"model{suffix}"
            assert path in written(worker, case, path)
            for batch, time in ((3, 4), (1, 1), (2, 9)):
                assert outputs(worker, case, path, batch, time) < ALLOWED[dtype]
            assert_comes_back(worker, case, path)
