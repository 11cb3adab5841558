"""The first wrong module of users' models in ONNX, Keras, flax.linen and flax.nnx."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import warm_commands
from users_models import checked, model_file
from wording import Wording

from harness.runtime.own_model.service import of_format

FLAX = os.environ.get("HARNESS_FLAX", "")
SPEC = """\
model: three
summary: Three dense layers.
source: A test.
sizes: {features: 4, units: 5}
inputs:
  x: {shape: [batch, time, features]}
layers:
  one: {layer: dense, units: units, activation: tanh}
  two: {layer: dense, units: units, activation: relu}
  out: {layer: dense, units: features}
equations: y = out(two(one(x)))
"""


def graph(path: Path, function: str) -> None:
    """Write an ONNX file of the spec with another function after the second layer."""
    make, nodes, weights, last = onnx.helper.make_node, [], [], "x"
    for layer, op in (("one", "Tanh"), ("two", function), ("out", "Identity")):
        sizes = {"one": (4, 5), "two": (5, 5), "out": (5, 4)}[layer]
        for name, shape in (("W", sizes), ("b", sizes[1:])):
            array = np.zeros(shape, np.float32)
            weights.append(onnx.numpy_helper.from_array(array, f"{layer}.{name}"))
        names = (f"{layer}_product", f"{layer}_sum", f"{layer}_{op}")
        nodes.append(make("MatMul", [last, f"{layer}.W"], [names[0]], names[0]))
        nodes.append(make("Add", [names[0], f"{layer}.b"], [names[1]], names[1]))
        nodes.append(make(op, [names[1]], [names[2]], names[2]))
        last = names[2]
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", "time", 4])
        for name in ("x", last)
    ]
    made = onnx.helper.make_graph(nodes, "three", ports[:1], ports[1:], weights)
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(made, opset_imports=opset, ir_version=8), path)


def test_the_nodes_of_an_onnx_graph_are_its_modules(tmp_path: Path, wording: Wording) -> None:
    spec, sizes = model_file(tmp_path, SPEC, "three.yaml"), {"features": 4, "units": 5}
    graph(tmp_path / "right.onnx", "Relu")
    graph(tmp_path / "wrong.onnx", "Sigmoid")
    service = of_format("onnx")
    right = checked(service, spec, f"{tmp_path}/right.onnx", "float32", sizes=sizes)
    assert right.verdict == "agree"
    result = checked(service, spec, f"{tmp_path}/wrong.onnx", "float32", sizes=sizes)
    wording.line(result.location, "two_sum (right) ... out_product ... two_Sigmoid")


LINEN = """\
import flax.linen as nn
import jax
import jax.numpy as jnp


class Net(nn.Module):
    function: str = "relu"

    @nn.compact
    def __call__(self, x):
        dense = lambda units, name: nn.Dense(units, name=name, param_dtype=x.dtype)
        x = jnp.tanh(dense(5, "one")(x))
        return dense(4, "out")(getattr(nn, self.function)(dense(5, "two")(x)))


wrong = Net("sigmoid")


def start():
    return Net().init(jax.random.PRNGKey(0), jnp.zeros((2, 3, 4)))
"""
NNX = """\
import jax.numpy as jnp
from flax import nnx


class Net(nnx.Module):
    def __init__(self):
        options = {"rngs": nnx.Rngs(0), "param_dtype": jnp.result_type(float)}
        self.one = nnx.Linear(4, 5, **options)
        self.two = nnx.Linear(5, 5, **options)
        self.out = nnx.Linear(5, 4, **options)

    def __call__(self, x):
        return self.out(nnx.sigmoid(self.two(jnp.tanh(self.one(x)))))


def wrong(params, x):
    net = Net()
    nnx.update(net, params)
    return net(x)


def start():
    return nnx.state(Net(), nnx.Param)
"""
KERAS = """\
import keras

x = keras.Input((None, 4), name="x")
h = keras.layers.Dense(5, activation="tanh", name="one")(x)
h = keras.layers.Activation("sigmoid", name="curve")(keras.layers.Dense(5, name="two")(h))
wrong = keras.Model(x, keras.layers.Dense(4, name="out")(h))
"""
KINDS = {
    "linen": (LINEN, "wrong:start", "params.", ""),
    "nnx": (NNX, "wrong:start", "", ".value"),
    "keras": (KERAS, "wrong", "", ""),
}


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_modules_of_other_frameworks(tmp_path: Path, kind: str, wording: Wording) -> None:
    source, name, before, after = KINDS[kind]
    model_file(tmp_path, source)
    model_file(tmp_path, SPEC, "three.yaml")
    arguments = ["check", "three.yaml", "--against", f"model.py:{name}", "--json"]
    arguments += ["--size", "features=4,units=5", "--dtype", "float32", "--check", "inference"]
    for layer in ("one", "two", "out"):
        for ours, theirs in (("W", "kernel"), ("b", "bias")):
            arguments += ["--map", f"{layer}.{ours}={before}{layer}.{theirs}{after}"]
    if kind != "keras":
        if not FLAX:
            pytest.skip("HARNESS_FLAX names no Python that has Flax")
        arguments += ["--backend", "jax", "--python", FLAX]
    done = warm_commands.run(arguments, cwd=tmp_path, env={**os.environ}, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    (cause,) = json.loads(done.stdout)["causes"]
    assert cause["layers"] == ["out"]
    wording.line(cause["location"], f"{before}two (right) ... {before}out (spec: out)")
