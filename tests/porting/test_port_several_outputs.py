"""Ports of modules that return several values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.commands import cli

pytest.importorskip("torch")
MODELS = Path(__file__).with_name("models_torch.py")


def port(folder: Path, name: str, lengths: str, *options: str) -> dict[str, Any]:
    """Port a model with proof; return its spec."""
    asked = ["port", f"{MODELS}:{name}", "--input", f"x={lengths}", "-o", str(folder / "port")]
    done = CliRunner().invoke(cli, [*asked, "--check-on", "numpy", "--json", *options])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["proved"] is True
    (path,) = (folder / "port").glob("*.yaml")
    return dict(yaml.safe_load(path.read_text()))


def test_blocks_with_two_results_are_one_definition(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    spec = port(tmp_path, "Flow", "batch,6", "--to", "jax")
    assert spec["equations"].splitlines()[0] == "h, h_2 = blocks_0(x)"
    (definition,) = spec["definitions"]
    assert definition["output"] == ["y", "y_2"]
    (path,) = (tmp_path / "port").glob("*_jax.py")
    assert path.read_text().count("def coupling(") == 1


def test_results_that_nobody_reads_are_left_out(tmp_path: Path) -> None:
    spec = port(tmp_path, "Caches", "batch,time,8")
    (definition,) = spec["definitions"]
    assert definition["output"] == ["y", "y_2", "y_3"]
    lines = spec["equations"].splitlines()
    assert {"h, h_2, y_3 = blocks_0(x)", "y_1, h_3, y_5 = blocks_1(h)"} < {*lines}


def test_weights_of_an_attention_that_are_read_are_computed_once(tmp_path: Path) -> None:
    spec = port(tmp_path, "Weights", "batch,time,8")
    assert spec["equations"].count("softmax") == 1
    assert [layer["layer"] for layer in spec["layers"].values()].count("dense") == 4


def test_final_cell_states_are_results_of_the_layer(tmp_path: Path) -> None:
    spec = port(tmp_path, "RecurrentBlocks", "batch,time,4")
    (definition,) = spec["definitions"]
    assert definition["output"] == ["y", "y_2", "y_3"]
    assert definition["equations"].startswith("h, h_2, h_3 = lstm(norm(x))\n")
