"""Layers of layers with parameters and noise of their own, in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from export_round_trip import NEEDS, assert_round_trip, torch_module
from sampling import sampled
from scaled_model import scaled


@pytest.mark.parametrize("format_", sampled(NEEDS, ("torch",)))
def test_outputs_are_the_oracles_and_weights_come_back(format_: str, tmp_path: Path) -> None:
    assert_round_trip(format_, scaled(), tmp_path, ((3, 4), (1, 1)))


def test_a_module_of_torch_trains_them_and_draws_their_noise(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    module = torch_module(scaled(), path, "scaled_module")
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
