"""Models of users in every framework, and a whole run of the command line with its records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import warm_commands
from places import ROOT
from users_models import GRU, NET, RULES, checked, model_file
from wording import Wording

from harness.backends.onnx.own_model import OnnxModel
from harness.errors import UsageError
from harness.results.file import read_records
from harness.results.lines import Head, Result
from harness.runtime.own_model.service import OwnModelService, of_format
from harness.runtime.plugins import load

SUPPORT = ROOT / "tests" / "support"
# What a small model in every framework is held against.
DENSE = """\
model: one_layer
summary: A dense layer.
source: A test.
sizes: {features: 5, units: 3}
inputs:
  x: {shape: [batch, features]}
layers:
  out: {layer: dense, units: units, activation: tanh}
equations: |
  y = out(x)
"""
SIZES = {"features": 5, "units": 3}


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return model_file(tmp_path, DENSE, "one_layer.yaml")


def test_a_transformer_in_torch_is_the_gpt_that_ships() -> None:
    service = OwnModelService("torch", load("torch"))
    rules = [str(SUPPORT / "users_gpt.map")]
    result = checked(service, "gpt", f"{SUPPORT / 'users_gpt.py'}:GPT", "float64", maps=rules)
    assert result.verdict == "agree", [f.detail for f in result.findings]
    gradients = next(f for f in result.findings if f.check == "cotangent-gradients")
    assert len(gradients.deviations) > 30
    # What the process runs next is not the user's.
    assert torch.get_default_dtype() == torch.float32


IMAGE = """\
model: image
summary: Two convolutions, of which one is of each channel by itself.
source: A test.
sizes: {units: 4}
inputs:
  image: {shape: [batch, 6, 6, 2]}
layers:
  wide: {layer: conv2d, units: units, kernel: 3, activation: tanh}
  deep: {layer: conv2d, units: 2 * units, groups: units, kernel: 2}
equations: |
  y = deep(wide(image))
"""
CONVOLUTIONS = """\
from torch import nn


class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(2, 4, 3)
        self.deep = nn.Conv2d(4, 8, 2, groups=4)

    def forward(self, image):
        return self.deep(self.wide(image.permute(0, 3, 1, 2)).tanh()).permute(0, 2, 3, 1)
"""


def test_kernels_of_a_users_convolutions_lie_as_torch_has_them(tmp_path: Path) -> None:
    """Channels first: rows and columns are not exchanged, which a square kernel would not tell."""
    spec = model_file(tmp_path, IMAGE, "image.yaml")
    target = f"{model_file(tmp_path, CONVOLUTIONS)}:Image"
    result = checked(OwnModelService("torch", load("torch")), spec, target, "float64")
    assert result.verdict == "agree", [f.detail for f in result.findings]


STATEFUL = """\
import torch
from torch import nn


class Stateful(nn.Module):
    def __init__(self, vocab, factors, hidden):
        super().__init__()
        self.embed = nn.Embedding(vocab, factors)
        self.norm = nn.BatchNorm1d(factors, eps=1e-3, momentum=0.01)
        self.W = nn.Linear(factors, 4 * hidden)
        self.U = nn.Linear(hidden, 4 * hidden, bias=False)
        self.out = nn.Linear(hidden, vocab)

    def forward(self, chars, h, c):
        rows = []
        for x_t in self.norm(self.embed(chars).transpose(1, 2)).unbind(2):
            i, f, g, o = (self.W(x_t) + self.U(h)).chunk(4, -1)
            i, f, o = (torch.clamp(0.2 * t + 0.5, 0, 1) for t in (i, f, o))
            c = f * c + i * torch.tanh(g)
            h = o * torch.tanh(c)
            rows.append(h)
        return self.out(torch.stack(rows, 1)), (h[None], c)
"""


def test_state_goes_in_and_out_and_statistics_are_mapped(tmp_path: Path, wording: Wording) -> None:
    rules = ["norm.moving_mean=norm.running_mean", "norm.moving_variance=norm.running_var"]
    for at, gate in enumerate("ifgo"):
        part = f"[{7 * at}:{7 * at + 7}]"
        rules += [f"lstm.{n}_{gate}={n}.weight{part}.T" for n in "WU"]
        rules += [f"lstm.b_{gate}=W.bias{part}"]
    file = model_file(tmp_path, STATEFUL)
    service = OwnModelService("torch", load("torch"))
    spec = "lesson6/stateful_lstm"
    result = checked(service, spec, f"{file}:Stateful", "float64", maps=rules)
    verdicts = {f.check: f.verdict for f in result.findings}
    # torch moves towards the variance of a sample, the spec towards that of the batch.
    assert verdicts.pop("statistics") == "differ"
    assert set(verdicts.values()) == {"agree"}
    wording.line(result.location, "statistics.norm.moving_variance")
    compared = {d.name for f in result.findings for d in f.deviations}
    assert {"output.logits", "state.h", "state.c", "gradient.state.h"} <= compared


JAX = """\
import jax.numpy as jnp


def apply(params, x):
    return jnp.tanh(x @ params["out"]["W"] + params["out"]["b"])


def init(features, units):
    return [jnp.zeros((units, features)), jnp.zeros(units)]


def turned(params, x):
    weight, bias = params
    return {"y": jnp.tanh(x @ weight.T + bias)}


def wrong(params, x):
    return jnp.tanh(x @ params["out"]["W"] - params["out"]["b"])
"""


def test_a_function_of_jax(dense: Path, tmp_path: Path) -> None:
    service = OwnModelService("jax", load("jax"))
    file = model_file(tmp_path, JAX)
    plain = checked(service, dense, f"{file}:apply", "float64")
    assert plain.verdict == "agree", [f.detail for f in plain.findings]
    assert "cotangent-gradients" in {f.check for f in plain.findings}
    rules = ["out.W=0.T", "out.b=1"]
    own = checked(service, dense, f"{file}:turned:init", "float64", maps=rules)
    assert own.verdict == "agree", [f.detail for f in own.findings]
    wrong = checked(service, dense, f"{file}:wrong", "float64", checks=("inference",))
    assert wrong.verdict == "differ"
    with pytest.raises(UsageError, match="KeyError: 'out'"):
        checked(service, dense, f"{file}:apply", "float64", maps=["out=dense"])


def onnx_file(folder: Path, dtype: str = "float32") -> Path:
    """y = tanh(x @ weight + bias), its names other than the spec's."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("MatMul", ["x", "onnx::MatMul_3"], ["a"]),
        helper.make_node("Add", ["a", "bias"], ["b"]),
        helper.make_node("Tanh", ["b"], ["result"]),
    ]
    arrays = {"onnx::MatMul_3": np.zeros((5, 3), dtype), "bias": np.zeros(3, dtype)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["batch", 5])],
        [helper.make_tensor_value_info("result", kind, ["batch", 3])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    path = folder / "net.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    return path


def test_an_onnx_file(dense: Path, tmp_path: Path, wording: Wording) -> None:
    service = of_format("onnx")
    file, rules = str(onnx_file(tmp_path)), ["out.W=onnx::MatMul_3", "out.b=bias"]
    result = checked(service, dense, file, "float32", maps=rules, sizes=SIZES)
    assert result.verdict == "agree", [f.detail for f in result.findings]
    assert [f.check for f in result.findings] == [
        *("repeatability", "inference", "saturation", "corners", "shapes")
    ]
    with pytest.raises(UsageError, match=r"--map out\.W=onnx::MatMul_3 --map out\.b=bias"):
        checked(service, dense, file, "float32", sizes=SIZES)
    with wording.raises(UsageError, "float32 ... expected ... float64"):
        checked(service, dense, file, "float64", maps=rules, sizes=SIZES)
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with wording.raises(UsageError, "ONNX"):
        checked(service, dense, file, "float32", maps=rules, sizes=SIZES)


def external(place: str) -> onnx.TensorProto:
    """A tensor whose numbers are said to be in the file ``place``."""
    tensor = onnx.numpy_helper.from_array(np.zeros(3, "float32"), "c")
    onnx.external_data_helper.set_external_data(tensor, place, 0, 12)
    tensor.ClearField("raw_data")
    return tensor


def _constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return onnx.helper.make_node("Constant", [], ["c"], value=tensor)


def _branch(tensor: onnx.TensorProto) -> onnx.NodeProto:
    given = onnx.helper.make_tensor_value_info("c", 1, [3])
    inner = onnx.helper.make_graph([], "inner", [], [given], [tensor])
    outer = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["t"], ["c"], then_branch=inner, else_branch=inner)],
        *("outer", [], [given]),
    )
    return onnx.helper.make_node("If", ["t"], ["c"], then_branch=outer, else_branch=outer)


def _in_a_node(made: Callable[[onnx.TensorProto], onnx.NodeProto]) -> Callable[..., None]:
    return lambda model, tensor: model.graph.node.append(made(tensor))


def _in_a_function(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    opset = [onnx.helper.make_opsetid("", 18)]
    nodes = [_constant(tensor)]
    made = onnx.helper.make_function("own", "F", [], ["c"], nodes, opset)
    model.functions.append(made)


def _sparse(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    indices = onnx.numpy_helper.from_array(np.arange(3), "i")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(tensor, indices, [9]))


@pytest.mark.parametrize("place", ["secret.bin", "../secret.bin", "/etc/passwd"])
@pytest.mark.parametrize(
    "put",
    [
        lambda model, tensor: model.graph.initializer.append(tensor),
        _sparse,
        _in_a_node(_constant),
        _in_a_node(_branch),
        _in_a_function,
    ],
    ids=["initializer", "sparse", "constant", "branch", "function"],
)
def test_an_onnx_file_leads_to_no_other(
    put: Callable[..., None], place: str, tmp_path: Path, wording: Wording
) -> None:
    path = onnx_file(tmp_path)
    model = onnx.load_model(path)
    put(model, external(place))
    path.write_bytes(model.SerializeToString())
    with wording.raises(UsageError, f"{place}"):
        OnnxModel(path)


KERAS = """\
import keras

x = keras.Input((5,), name="x")
model = keras.Model(x, keras.layers.Dense(3, activation="tanh", name="out")(x))
model.save("net.keras")
wrong = keras.Model(x, keras.layers.Dense(3, name="out")(x))
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return warm_commands.run(["check", *arguments], cwd=folder, env=variables, timeout=300)


@pytest.mark.thorough
@pytest.mark.slow
def test_keras_models_and_files(dense: Path, tmp_path: Path) -> None:
    model_file(tmp_path, KERAS)
    usual = (str(dense), "--size", "features=5,units=3", "--dtype", "float32", "--against")
    for target, code in (("model.py:model", 0), ("net.keras", 0), ("model.py:wrong", 1)):
        done = run(tmp_path, *usual, target)
        assert done.returncode == code, done.stdout + done.stderr


def test_a_run_of_the_command_line_is_recorded_like_any_other(tmp_path: Path) -> None:
    model_file(tmp_path, NET)
    model_file(tmp_path, GRU, "gru_lm.yaml")
    usual = ("gru_lm.yaml", "--against", "model.py:Net", "--dtype", "float32", "--json")
    rules = [word for rule in RULES for word in ("--map", rule)]
    done = run(tmp_path, *usual, *rules, "--records", "run.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert {r["verdict"] for r in told["results"]} == {"agree"}
    assert {r["backend"] for r in told["results"]} == {"torch@model.Net"}
    records = read_records(tmp_path / "run.jsonl")
    (head,) = records.of_kind(Head)
    assert head.request.against.model == "model.py:Net"
    column = head.columns["torch@model.Net"]
    assert column["backend"] == "torch"
    # One environment may have its interpreter under several names.
    assert Path(column["interpreter"]).parent == Path(sys.executable).parent
    assert len(records.of_kind(Result)) == 6
