"""``harness check net.py:Net``: the model's trace is the spec, which backends check too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from wording import Wording

from harness.checking.history import rerun_command
from harness.checking.options import DTYPES
from harness.checking.own_model.against import parse_against
from harness.checking.runner import CellRunner
from harness.checking.task import Task, tasks
from harness.commands import cli
from harness.errors import UsageError
from harness.given.make_request import make_check_request
from harness.porting.check import trace_model

MODELS = Path(__file__).with_name("models_torch.py")
SPEC = """model: net
summary: A line.
source: A test.
inputs:
  x: {shape: [batch, 6]}
layers:
  up: {layer: dense, units: 8}
equations: |
  y = up(x)
"""


def checked(model: str, *options: str, code: int = 0) -> Any:
    """Check a model; return what the command prints with ``--json``, or its error message."""
    done = CliRunner().invoke(cli, ["check", model, "--backend", "numpy", "--json", *options])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code < 2 else done.stderr


def verdicts(results: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    return {(r["backend"], r["dtype"], r["verdict"]) for r in results["results"]}


def test_a_module_and_its_trace_are_checked_without_a_spec(tmp_path: Path) -> None:
    options = ("--input", "x=batch,6", "--check", "inference,cotangents,values")
    records = tmp_path / "records.jsonl"
    found = checked(f"{MODELS}:Mlp", *options, "--records", str(records), "--dtype", "float32")
    assert verdicts(found) == {
        ("torch@models_torch.Mlp", "float32", "agree"),
        ("numpy", "float32", "agree"),
    }
    head = json.loads(records.read_text().splitlines()[0])
    assert head["sources"] == {"mlp_port": f"{MODELS}:Mlp"}
    assert head["request"]["against"]["inputs"] == ["x=batch,6"]


def test_a_file_is_checked_in_its_own_dtype(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from tests.porting import models_onnx

    path = models_onnx.classifier().save(tmp_path / "net.onnx")
    found = checked(str(path), "--check", "inference")
    cells = {(r["backend"], r["dtype"]) for r in found["results"]}
    assert cells == {("onnx@net", "float32"), ("numpy", "float64"), ("numpy", "float32")}


def test_a_model_that_cannot_be_traced_is_refused_as_by_port(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from tests.porting import models_onnx

    error = checked(str(models_onnx.odd().save(tmp_path / "odd.onnx")), code=2)
    assert "Hardmax" in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"specs": ("net.py:Net", "mlp")}, "net.py:Net ... mlp"),
        ({"specs": ("net.py:Net",), "maps": ("a=b",)}, "--map ... net.py:Net"),
        ({"specs": ("net.onnx",), "against": "net.py:Net"}, "--against ... net.onnx"),
        ({"specs": ("mlp",), "traced_inputs": ("x=batch,6",)}, "--input ... net.py:Net"),
    ],
)
def test_options_without_a_meaning_are_told(
    options: dict[str, Any], words: str, wording: Wording
) -> None:
    with wording.raises(UsageError, words):
        trace_model(options, lambda _: None)


@pytest.fixture
def runner(tmp_path: Path) -> CellRunner:
    """A run of a traced spec, on numpy and another torch."""
    (tmp_path / "net.py").write_text("import torch, jax\n")
    torch = "torch@2.6"
    request = make_check_request(
        {
            "specs": ("net",),
            "texts": {"net": SPEC},
            "backends": ("numpy", torch, "torch"),
            "pythons": {torch: "/p", "torch": "/q"},
            "dtypes": DTYPES,
            "against": replace(
                parse_against(f"{tmp_path}/net.py:Net", preferred=["torch"]),
                maps=("up.W = up.weight.T",),
                inputs=("x=batch,6",),
                paths=("native", "autocast"),
            ),
        }
    )
    return CellRunner(request)


def test_the_model_is_a_column_before_the_backends(runner: CellRunner) -> None:
    own = "torch@net.Net"
    assert runner.backends == (own, "numpy", "torch@2.6", "torch")
    assert [w.launch.python for n, w in runner.workers.items() if "torch" in n] == [
        "/q",
        "/p",
        "/q",
    ]
    assert {n for n, w in runner.workers.items() if "own_model" in w.launch.service} == {own}


def test_a_cell_is_run_again_from_the_model(runner: CellRunner) -> None:
    cells = {cell.backend: cell for cell in runner.cells()}
    own = rerun_command(cells["torch@net.Net"], runner.new_head())
    other = rerun_command(cells["torch@2.6"], runner.new_head())
    assert own[2].endswith("/net.py:Net")
    assert own[3:5] == ["--backend", "torch"]
    assert other[3:5] == ["--backend", "torch@2.6"]
    assert "--map" not in own
    assert "--against" not in own
    assert own[own.index("--input") + 1] == "x=batch,6"


def test_other_machines_get_the_spec_but_not_the_model(runner: CellRunner) -> None:
    found = tasks(runner)
    assert {task.cell.backend for task in found} == {"numpy", "torch@2.6", "torch"}
    request = Task.of(json.loads(json.dumps(found[0].record()))).request
    assert request.library.model("net").name[0] == "net"
