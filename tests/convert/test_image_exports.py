"""Convolutions and pools in every format: the oracle's outputs, and weights that come back."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from format_cases import ALLOWED, Case, assert_comes_back, outputs, written
from image_model import image_model

import harness
from harness.convert.formats import launch
from harness.worker.worker import Worker

NEEDS = {"torch": "torch", "jax": "jax", "keras": "keras", "onnx": "onnxruntime"}
SUFFIX = {"torch": ".pt", "jax": ".npz", "keras": ".keras", "onnx": ".onnx"}


@pytest.mark.parametrize("format_", NEEDS)
def test_outputs_are_the_oracles_and_weights_come_back(format_: str, tmp_path: Path) -> None:
    if find_spec(NEEDS[format_]) is None:
        pytest.skip(f"{NEEDS[format_]} is not installed")
    environment = {"KERAS_BACKEND": "tensorflow"} if format_ == "keras" else {}
    with Worker(launch(format_, environment=environment)) as worker:
        for dtype in ALLOWED:
            case = Case.of(harness.load(image_model(tmp_path)), dtype)
            path = tmp_path / f"model{SUFFIX[format_]}"
            assert path in written(worker, case, path)
            for batch in (3, 1):
                assert outputs(worker, case, path, batch, 1) < ALLOWED[dtype]
            assert_comes_back(worker, case, path)
