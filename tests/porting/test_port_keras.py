"""Ports of Keras models."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.commands import cli
from harness.porting.proof import ITEMS

# Every process of pytest reads this file, and Keras takes seconds to import.
pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed")
MODELS = Path(__file__).with_name("models_keras.py")


# The layers of the model ``refused``.
NAMES = ("GaussianNoise", "BatchNormalization", "LSTM")


def line_of(text: str) -> int:
    """Return the number of the line of the models that has a text."""
    lines = MODELS.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def port(folder: Path, name: str, *options: str, code: int = 0) -> dict[str, Any]:
    """Port a model of the tests; return what the command prints with ``--json``."""
    arguments = ["port", f"{MODELS}:{name}", "-o", str(folder / "port"), "--check-on", "numpy"]
    done = CliRunner().invoke(cli, [*arguments, "--json", *options])
    assert done.exit_code == code, done.output
    return dict(json.loads(done.stdout)) if code < 2 else {"error": done.stderr}


@pytest.mark.parametrize("name", ["two_inputs", "image", "recurrent"])
def test_layers_are_ported_with_proof(tmp_path: Path, name: str) -> None:
    ported = port(tmp_path, name)
    assert ported["proved"] is True
    assert ported["against"]["float64"] > 12


def test_slices_are_ported_with_proof(tmp_path: Path) -> None:
    assert port(tmp_path, "slices")["proved"] is True
    (path,) = (tmp_path / "port").glob("slices*.yaml")
    assert "x[:, 0] - x[:, -1] * x[:, 2]" in path.read_text()


def test_transposed_convolutions_are_ported_to_torch_and_keras(tmp_path: Path) -> None:
    ported = port(tmp_path, "transposed", "--to", "torch", "--to", "keras")
    assert ported["proved"] is True
    (path,) = (tmp_path / "port").glob("transposed*.yaml")
    layers = yaml.safe_load(path.read_text())["layers"]
    assert [entry["kernel"] for entry in layers.values()] == [4, 3, 2]
    assert "fold" in (tmp_path / "port" / "transposed_torch.py").read_text()
    assert "one_hot" not in (tmp_path / "port" / "transposed_keras.py").read_text()


def test_convolutions_and_pools_are_written_as_keras_operations(tmp_path: Path) -> None:
    assert port(tmp_path, "dilated", "--to", "keras")["proved"] is True
    source = (tmp_path / "port" / "dilated_keras.py").read_text()
    assert "ops.take" not in source
    assert all(f"ops.{name}(" in source for name in ("conv", "max_pool", "average_pool"))


def test_cells_and_dense_layers_of_several_axes_become_layers(tmp_path: Path) -> None:
    assert port(tmp_path, "cells")["proved"] is True
    (path,) = (tmp_path / "port").glob("cells*.yaml")
    layers = [entry["layer"] for entry in yaml.safe_load(path.read_text())["layers"].values()]
    assert sorted(layers) == ["dense", "dense", "gru_reset_after", "lstm"]
    # All weights are compared: no rule leaves out a weight.
    assert "- =" not in path.with_suffix(".map").read_text()


def test_masks_are_ported_with_proof(tmp_path: Path) -> None:
    assert port(tmp_path, "masked")["proved"] is True
    (path,) = (tmp_path / "port").glob("masked*.yaml")
    assert "words != 0" in path.read_text()


@pytest.mark.thorough
def test_further_layers_are_ported_with_proof(tmp_path: Path) -> None:
    assert port(tmp_path, "layered")["proved"] is True
    (path,) = (tmp_path / "port").glob("layered*.yaml")
    layers = yaml.safe_load(path.read_text())["layers"]
    kinds = [entry["layer"] for entry in layers.values()]
    assert sorted(kinds) == ["causal_attention", "conv1d", "conv2d", "conv2d", "conv2d_transpose"]


def test_sequential_model_keeps_its_names(tmp_path: Path) -> None:
    assert port(tmp_path, "mlp")["proved"] is True
    (path,) = (tmp_path / "port").glob("mlp*.yaml")
    spec = yaml.safe_load(path.read_text())
    assert spec["equations"].strip() == "y = softmax(down(drop(relu(up(x)))))"


def test_layers_without_a_rule_are_named_all_at_once(tmp_path: Path) -> None:
    refused = port(tmp_path, "refused", code=2)["error"]
    assert all(f"keras.{n}" in refused for n in NAMES)
    assert f"models_keras.py:{line_of('GaussianNoise(0.5)')}, layer gaussian_noise: " in refused


def test_lines_of_a_call_that_cannot_be_traced_are_named(tmp_path: Path) -> None:
    inputs = ("--input", "x=batch,6")
    refused = port(tmp_path, "Inverse", *inputs, code=2)["error"]
    assert f"models_keras.py:{line_of('ops.erfinv')}: keras.Erfinv" in refused
    assert (
        f"(line {line_of('if keras.ops.sum')})"
        in port(tmp_path, "Signed", *inputs, code=2)["error"]
    )


@pytest.mark.parametrize("name", ["stacked", "states"])
def test_recurrent_layers_are_ported_with_proof(tmp_path: Path, name: str) -> None:
    assert port(tmp_path, name)["proved"] is True
    spec = yaml.safe_load(next((tmp_path / "port").glob("*.yaml")).read_text())
    assert len(spec["outputs"]) == (5 if name == "states" else 2)
    assert len(spec["layers"]) == (2 if name == "states" else 4)


@pytest.mark.parametrize("name", ["attending", pytest.param("heads", marks=pytest.mark.thorough)])
def test_attention_with_a_mask_is_ported_with_proof(tmp_path: Path, name: str) -> None:
    options = ("--input", "x=batch,time,6", "--input", "mask=batch,time,time:2")
    assert port(tmp_path, name, *options)["proved"] is True
    equations = yaml.safe_load((tmp_path / "port" / f"{name}.yaml").read_text())["equations"]
    assert "mask != 0" in equations
    assert equations.count("arange(time)") >= 2
    assert "dropout" in equations


def test_model_and_layers_with_a_call_of_their_own_are_ported(tmp_path: Path) -> None:
    ported = port(tmp_path, "Own", "--input", "x=batch,time,4")
    assert ported["proved"] is True
    spec = yaml.safe_load((tmp_path / "port" / "own.yaml").read_text())
    assert spec["layers"] == {
        "blocks": {"layer": "residual", "repeat": 2},
        "drop": {"layer": "dropout", "keep": 0.9},
        "dense": {"layer": "dense", "units": 3},
    }
    (definition,) = spec["definitions"]
    assert [*definition["layers"]] == ["norm", "dense"]


def test_call_may_take_no_training(tmp_path: Path) -> None:
    assert port(tmp_path, "WithoutMode", "--input", "x=batch,4")["proved"] is True
    spec = yaml.safe_load((tmp_path / "port" / "without_mode.yaml").read_text())
    assert [*spec["layers"]] == ["norm", "dense", "dense_2"]


def test_made_up_names_of_layers_have_no_number(tmp_path: Path) -> None:
    assert port(tmp_path, "functional")["proved"] is True
    spec = yaml.safe_load((tmp_path / "port" / "functional.yaml").read_text())
    assert [*spec["layers"]] == ["blocks", "halves", "halves_2", "norm", "out"]
    names = [[*definition["layers"]] for definition in spec["definitions"]]
    assert names == [["norm", "dense", "dense_2"], ["up", "down"]]
    assert spec["definitions"][1]["output"] == ["y", "y_2"]


@pytest.mark.parametrize(
    "backend",
    ["keras", *(pytest.param(f"keras-{n}", marks=pytest.mark.thorough) for n in ("torch", "jax"))],
)
def test_dropout_of_a_transformer_block_is_proved_in_training_mode(
    tmp_path: Path, backend: str
) -> None:
    options = ("--loss", "sparse_cross_entropy", "--backend", backend)
    assert port(tmp_path, "block", *options)["proved"] is True
    layers = yaml.safe_load((tmp_path / "port" / "block.yaml").read_text())["layers"]
    keeps = [layer["keep"] for layer in layers.values() if "keep" in layer]
    assert keeps == [0.9, 0.8, 0.7]
    proof = (tmp_path / "port" / "README.md").read_text()
    assert all(f"| float64 | {ITEMS[name]} |" in proof for name in ("outputs", "statistics"))
    assert ITEMS["training-sgd"] in proof


def test_random_numbers_that_an_axis_shares_are_proved_in_training_mode(tmp_path: Path) -> None:
    assert port(tmp_path, "shared")["proved"] is True
    spec = yaml.safe_load((tmp_path / "port" / "shared.yaml").read_text())
    keeps = [layer["keep"] for layer in spec["layers"].values() if "keep" in layer]
    assert keeps == [0.9, 0.8]
    assert ITEMS["outputs"] in (tmp_path / "port" / "README.md").read_text()


@pytest.mark.parametrize("name", ["frozen", "Fixed"])
def test_frozen_batch_norms_are_proved_in_training_mode(tmp_path: Path, name: str) -> None:
    inputs = ["--input", "x=batch,6"] if name == "Fixed" else []
    ported = port(tmp_path, name, *inputs)
    assert ported["proved"] is True
    frozen = ["the model does not train up.kernel, up.bias"]
    assert ported["remarks"] == (frozen if name == "frozen" else [])
    proof = (tmp_path / "port" / "README.md").read_text()
    assert f"| float64 | {ITEMS['outputs']} |" in proof
    # One batch norm of the other model is not frozen.
    assert (ITEMS["statistics"] in proof) == (name == "Fixed")


@pytest.mark.parametrize("name", ["Shaken", "Untrained"])
def test_other_training_modes_are_not_compared(tmp_path: Path, name: str) -> None:
    ported = port(tmp_path, name, "--input", "x=batch,6")
    assert ported["proved"] is True
    number = line_of("keras.random.normal")
    proof = (tmp_path / "port" / "README.md").read_text().replace("\\", "")
    assert (f"training mode (models_keras.py:{number}: " in proof) == (name == "Shaken")
    assert f"| {ITEMS['outputs']} |" not in proof
    assert len(ported["remarks"]) == 1
