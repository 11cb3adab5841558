"""Models with noise, lengths and masks in every format: the oracle's inference; and what a module
of torch draws in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from export_round_trip import NEEDS, assert_round_trip, torch_module
from noisy_model import noisy
from sampling import sampled


@pytest.mark.parametrize("format_", sampled(NEEDS, ("torch", "onnx")))
def test_outputs_are_the_oracles_and_weights_come_back(format_: str, tmp_path: Path) -> None:
    assert_round_trip(format_, noisy(), tmp_path, ((3, 4), (1, 1), (2, 9)))


def test_a_module_of_torch_draws_noise_in_training(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    module = torch_module(noisy(), path, "noisy_module")
    made = module.Noisy()
    made.load_state_dict(torch.load(path, weights_only=True))
    x = torch.ones(50, 40, 3, dtype=torch.float64)

    def drawn(layer: Any, *given: Any) -> Any:
        made.train()
        torch.manual_seed(0)
        first = layer(*given)
        assert not torch.equal(first, layer(*given))
        return first

    dropped = drawn(made.drop, x)
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert float((dropped > 0).double().mean()) == pytest.approx(0.75, abs=0.03)
    assert not torch.equal(dropped[0], dropped[1])
    ones = torch.ones(2000, 2, dtype=torch.float64)
    codes = drawn(made.sample, 3 * ones, 0 * ones)
    assert float(codes.mean()) == pytest.approx(3, abs=0.07)
    assert float(codes.std()) == pytest.approx(1, abs=0.06)
    drawn(made.rnn, x)
    made.eval()
    assert torch.equal(made.drop(x), x)
    assert torch.equal(made.sample(ones, ones), ones)
    assert torch.equal(made.rnn(x), made.rnn(x))
