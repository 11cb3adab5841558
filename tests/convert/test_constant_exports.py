"""Constants in exported models: buffers, which no optimizer changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from constant_model import NAMES, with_constants
from export_round_trip import NEEDS, assert_round_trip, import_module, torch_module
from format_cases import Case, written
from sampling import sampled

from harness.convert.formats import launch
from harness.worker.worker import Worker


@pytest.mark.parametrize("format_", sampled(NEEDS, ("torch", "jax")))
def test_outputs_are_the_oracles_and_constants_come_back(format_: str, tmp_path: Path) -> None:
    assert_round_trip(format_, with_constants(), tmp_path, ((3, 4), (1, 1)))


def test_they_are_buffers_of_torch(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    made = torch_module(with_constants(), path, "constant_module").Consts()
    made.load_state_dict(torch.load(path, weights_only=True))
    buffers = dict(made.named_buffers())
    assert set(buffers) == {name.replace("scaled.", "scaled_") for name in NAMES}
    assert buffers["own.places"].dtype == torch.int64
    assert not set(buffers) & set(dict(made.named_parameters()))


def test_jax_does_not_differentiate_them(tmp_path: Path) -> None:
    jax: Any = pytest.importorskip("jax")
    path, case = tmp_path / "model.npz", Case.of(with_constants(), "float32")
    with Worker(launch("jax")) as worker:
        written(worker, case, path)
    module = import_module(path, "constant_functions")
    params, constants = module.load(path)
    assert constants["own"].keys() == {"rates", "places", "shift"}
    assert params["own"].keys() == {"bias_table"}
    chars = np.array([[0, 1, 2, 3]])

    def loss(params: Any) -> Any:
        return (module.apply(params, constants, chars)["logits"] ** 2).mean()

    gradients = jax.grad(loss)(params)
    assert all(bool((g != 0).any()) for g in jax.tree.leaves(gradients))
