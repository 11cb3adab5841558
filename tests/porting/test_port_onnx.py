"""Ports of ONNX files: each operator with a rule is ported with proof, others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.commands import cli

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.porting import models_onnx  # noqa: E402


def port(folder: Path, name: str, *options: str, code: int = 0) -> dict[str, Any]:
    """Port a graph of the tests; return what the command prints with ``--json``."""
    path = getattr(models_onnx, name)().save(folder / f"{name}.onnx")
    arguments = ["port", str(path), "-o", str(folder / "port"), "--check-on", "numpy", "--json"]
    done = CliRunner().invoke(cli, [*arguments, *options])
    assert done.exit_code == code, done.output
    return dict(json.loads(done.stdout)) if code < 2 else {"error": done.stderr}


@pytest.mark.parametrize("name", ["elementwise", "shapes", "image", "recurrent", "rare"])
def test_operators_are_ported_with_proof(tmp_path: Path, name: str) -> None:
    assert port(tmp_path, name)["proved"] is True


def test_classifier_is_ported_without_its_label(tmp_path: Path) -> None:
    assert port(tmp_path, "classifier")["proved"] is True
    spec = yaml.safe_load((tmp_path / "port" / "classifier.yaml").read_text())
    assert len(spec["outputs"]) == 1
    assert spec["layers"] == {"dense": {"layer": "dense", "units": 3}}


def test_operators_without_a_rule_are_named_all_at_once(tmp_path: Path) -> None:
    refused = port(tmp_path, "odd", code=2)["error"]
    assert "Hardmax" in refused
    assert "Round" in refused
    assert not (tmp_path / "port").exists()
