"""The paths of a user's model: its compiler, autocast, its export; each with a planted fault."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from users_models import checked, model_file
from wording import Wording

from harness.checking.own_model.against import parse_against
from harness.checking.own_model.process import ModelProcess
from harness.errors import UsageError
from harness.runtime.own_model.service import OwnModelService
from harness.runtime.plugins import load

SPEC = """\
model: line
summary: A dense layer.
source: A test.
inputs:
  x: {shape: [batch, 6]}
layers:
  up: {layer: dense, units: 8}
equations: |
  y = tanh(up(x))
"""
NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.fault = lambda: False

    def forward(self, x):
        y = torch.tanh(self.up(x))
        return y * 1.1 if self.fault() else y


def net(fault):
    made = Net()
    made.fault = fault
    return made


Compiled = lambda: net(torch.compiler.is_dynamo_compiling)
Narrow = lambda: net(lambda: torch.is_autocast_enabled("cpu"))
Exported = lambda: net(lambda: torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling())
"""
JAX = """\
import jax
import jax.numpy as jnp

params = {"up": {"W": jnp.zeros((6, 8)), "b": jnp.zeros(8)}}


def apply(params, x):
    return jnp.tanh(x @ params["up"]["W"] + params["up"]["b"])


def faulty(params, x):
    return apply(params, x) * (1.1 if isinstance(x, jax.core.Tracer) else 1)
"""
PATHS = {"compiled": ("Compiled", "float32"), "autocast": ("Narrow", "bfloat16")}
PATHS["onnx"] = ("Exported", "float32")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return model_file(tmp_path, SPEC, "line.yaml")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own modules
@pytest.mark.parametrize(
    ("path", "compiler"),
    [("compiled", "eager"), ("compiled", "inductor"), ("autocast", ""), ("onnx", "")],
)
def test_a_fault_of_one_path_of_torch_is_found_on_that_path(
    torch_service: OwnModelService,
    spec: Path,
    tmp_path: Path,
    path: str,
    compiler: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if compiler == "eager":  # Inductor takes longer
        import torch

        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    file, (name, dtype) = model_file(tmp_path, NET), PATHS[path]
    for each in (f"{file}:Net", f"{file}:{name}"):
        assert checked(torch_service, spec, each, "float32").verdict == "agree"
    right = checked(torch_service, spec, f"{file}:Net", dtype, path=path)
    assert right.verdict == "agree"
    assert "Net (" in right.layers["model"]
    wrong = checked(torch_service, spec, f"{file}:{name}", dtype, path=path)
    verdicts = {f.check: f.verdict for f in wrong.findings}
    assert verdicts["inference"] == "differ"
    assert ("cotangent-gradients" in verdicts) == (path != "onnx")
    assert f"path {path} " in wrong.location


def test_a_fault_of_the_model_itself_is_explained_on_every_path(
    torch_service: OwnModelService, tmp_path: Path
) -> None:
    spec = model_file(tmp_path, SPEC.replace("tanh", "relu"), "line.yaml")
    file = model_file(tmp_path, NET)
    wrong = checked(torch_service, spec, f"{file}:Net", "bfloat16", path="autocast")
    assert "after up" in wrong.location


def test_a_fault_under_jit_is_found_on_the_path_compiled(spec: Path, tmp_path: Path) -> None:
    service = OwnModelService("jax", load("jax"))
    file = model_file(tmp_path, JAX)
    check = partial(checked, service, spec, dtype="float32", checks=("inference",))
    assert check(target=f"{file}:apply:params", path="compiled").verdict == "agree"
    assert check(target=f"{file}:faulty:params").verdict == "agree"
    assert check(target=f"{file}:faulty:params", path="compiled").verdict == "differ"


def test_a_path_that_fails_does_not_end_the_run(
    torch_service: OwnModelService, spec: Path, tmp_path: Path
) -> None:
    source = NET.replace("return y *", "raise ValueError('no export')\n        return y *", 1)
    source = source.replace("        raise", "        if self.fault():\n            raise")
    file = model_file(tmp_path, source.replace(" if self.fault() else y", ""))
    result = checked(torch_service, spec, f"{file}:Exported", "float32", path="onnx")
    assert result.verdict == "error"
    assert "no export" in result.findings[0].detail


def test_an_export_that_lacks_an_operator_names_the_other_exporter(
    torch_service: OwnModelService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.backends.torch.own_paths.find_spec", lambda name: None)
    spec = model_file(tmp_path, SPEC, "line.yaml")
    file = model_file(tmp_path, NET.replace("y = torch.tanh", "y = x.diff().sum() + torch.tanh"))
    check = partial(checked, torch_service, spec, f"{file}:Net", "float32", checks=("inference",))
    result = check(path="onnx")
    assert result.verdict == "error"
    assert "aten::diff" in result.findings[0].detail
    assert "onnxscript" in result.findings[0].detail


class Stub(ModelProcess):
    """A process that offers these paths."""

    def __init__(self, folder: Path, paths: Mapping[str, str]) -> None:
        self.against = parse_against(f"{model_file(folder, NET)}:Net")
        self.paths = paths

    def call(self, verb: str, **arguments: Any) -> Any:
        return {"paths": self.paths}[verb]


def test_paths_are_chosen_by_name_and_by_all(tmp_path: Path, wording: Wording) -> None:
    stub = Stub(tmp_path, {"native": "", "compiled": "", "onnx": "onnxruntime"})
    found = stub.choose_paths(("all",))
    assert (found.paths, found.lacking) == (("native", "compiled"), {"onnx": "onnxruntime"})
    assert stub.choose_paths(("derived", "compiled"), ("derived",)).paths == ("compiled",)
    with wording.raises(UsageError, "onnx ... onnxruntime"):
        stub.choose_paths(("native", "onnx"))
    with wording.raises(UsageError, "'compild' ... 'compiled'"):
        stub.choose_paths(("compild",))


def test_each_path_has_its_dtypes(tmp_path: Path) -> None:
    stub = Stub(tmp_path, dict.fromkeys(("native", "autocast", "onnx"), ""))
    own = stub.choose_paths(("all",))
    assert own.variants(("float64", "float16")) == [
        ("float64", "native"),
        ("float16", "autocast"),
        ("float32", "onnx"),
    ]
