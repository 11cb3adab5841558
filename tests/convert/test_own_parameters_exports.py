"""Layers of layers with parameters and noise of their own, in every format."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from format_cases import ALLOWED, Case, assert_comes_back, outputs, written
from sampling import sampled
from scaled_model import scaled

from harness.convert.formats import launch
from harness.worker.worker import Worker

NEEDS = {"torch": "torch", "jax": "jax", "keras": "keras", "onnx": "onnxruntime"}
SUFFIXES = {"torch": ".pt", "jax": ".npz", "keras": ".keras", "onnx": ".onnx"}


@pytest.mark.parametrize("format_", sampled(NEEDS, ("torch", "keras")))
def test_outputs_are_the_oracles_and_weights_come_back(format_: str, tmp_path: Path) -> None:
    if find_spec(NEEDS[format_]) is None:
        pytest.skip(f"{NEEDS[format_]} is not installed")
    environment = {"KERAS_BACKEND": "tensorflow"} if format_ == "keras" else {}
    with Worker(launch(format_, environment=environment)) as worker:
        for dtype in ALLOWED:
            case, path = Case.of(scaled(), dtype), tmp_path / f"model{SUFFIXES[format_]}"
            assert path in written(worker, case, path)
            for batch, time in ((3, 4), (1, 1)):
                assert outputs(worker, case, path, batch, time) < ALLOWED[dtype]
            assert_comes_back(worker, case, path)


def test_a_module_of_torch_trains_them_and_draws_their_noise(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    with Worker(launch("torch")) as worker:
        written(worker, Case.of(scaled(), "float64"), path)
    found = spec_from_file_location("scaled_module", tmp_path / "model.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    sys.modules.pop("scaled_module", None)
    made = module.Scaled(torch.float64)
    made.load_state_dict(torch.load(path, weights_only=True))
    names = dict(made.named_parameters())
    assert {"stem.token", "blocks_0.scale", "blocks_1.shift", "blocks_1_up.weight"} <= set(names)
    x = torch.ones(400, 2, 3, dtype=torch.float64)
    made.train()
    _, _, kept = made.blocks_0(torch.ones(400, 3, 4, dtype=torch.float64))
    assert kept.shape == (400, 1, 1)
    assert kept.unique().tolist() == [0.0, 1.0]
    made(x)["y"].square().mean().backward()
    assert all(bool(value.grad.any()) for value in names.values())
    made.eval()
    assert torch.equal(made(x)["y"], made(x)["y"])
