"""Models with attention, chains of layers, tied tables, experts and graphs in every format: the
oracle's outputs, and weights that come back."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from format_cases import ALLOWED, Case, assert_comes_back, outputs, written
from sampling import sampled

import harness
from harness.convert.formats import launch
from harness.worker.worker import Worker

NEEDS = {"torch": "torch", "jax": "jax", "keras": "keras", "onnx": "onnxruntime"}


MODELS = ["gpt", "mlp", "moe", "gcn", "dlrm", "llama", "bilstm_tagger"]


@pytest.mark.parametrize("name", sampled(MODELS, kept=("gpt", "mlp", "moe", "gcn")))
@pytest.mark.parametrize("format_", NEEDS)
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
