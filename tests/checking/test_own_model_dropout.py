"""Training mode of Keras, Flax and JAX models: the models use the spec's noise."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from users_models import model_file

from harness.commands import cli

FLAX = os.environ.get("HARNESS_FLAX", "")
needs_flax = pytest.mark.skipif(not FLAX, reason="HARNESS_FLAX names no Python that has Flax")

SPEC = """\
model: small
summary: A residual connection around dropout, and batch norm.
source: A test.
inputs: {x: {shape: [batch, time, 6]}}
layers:
  a: {layer: dense, units: 6}
  drop: {layer: dropout, keep: 0.9}
  norm: {layer: batch_norm}
  b: {layer: dense, units: 5}
equations: |
  y = b(norm(x + drop(relu(a(x)))))
outputs: [y]
targets: {target: {shape: [batch, time], index: 5}}
loss: mean(sparse_cross_entropy(y, target))
"""
KERAS = """\
import keras
from keras import layers

RATE, MOMENTUM, BETWEEN, SHAPE = 0.1, 0.99, True, None
noise = lambda h: h


def model():
    x = keras.Input((None, 6), name="x")
    drop = layers.Dropout(RATE, noise_shape=SHAPE, name="drop")
    h = noise(layers.Dense(6, activation="relu", name="a")(x))
    h = x + drop(h) if BETWEEN else drop(x + h)
    h = layers.BatchNormalization(momentum=MOMENTUM, name="norm")(h)
    return keras.Model(x, layers.Dense(5, name="b")(h))
"""
LINEN = """\
import flax.linen as nn
import jax.numpy as jnp

RATE, MOMENTUM, BETWEEN, SHARED = 0.1, 0.99, True, ()


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        drop = nn.Dropout(RATE, SHARED, deterministic=not train)
        h = nn.relu(nn.Dense(6, name="a")(x))
        h = x + drop(h) if BETWEEN else drop(x + h)
        norm = nn.BatchNorm(not train, momentum=MOMENTUM, epsilon=0.001, name="norm")
        return nn.Dense(5, name="b")(norm(h))


model = Net()


def start(key):
    return model.init(key, jnp.ones((2, 3, 6)), train=False)
"""
NNX = """\
import jax
from flax import nnx

RATE, MOMENTUM, BETWEEN, SHARED = 0.1, 0.99, True, ()


class model(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 5, rngs=rngs)
        self.drop = nnx.Dropout(RATE, broadcast_dims=SHARED, rngs=rngs)
        self.norm = nnx.BatchNorm(6, momentum=MOMENTUM, epsilon=0.001, rngs=rngs)

    def __call__(self, x):
        h = jax.nn.relu(self.a(x))
        h = x + self.drop(h) if BETWEEN else self.drop(x + h)
        return self.b(self.norm(h))
"""
# The change of each planted fault, and the findings that see it.
EVERY = {"outputs", "statistics", "training-sgd"}
FAULTS = {
    "after": ("True", "False", EVERY),
    "rate": ("0.1", "0.2", EVERY),
    "momentum": ("0.99", "0.9", {"statistics"}),
    "broadcast": ("None", "(None, 1, None)", EVERY),
    "shared": ("True, ()", "True, (1,)", EVERY),
}
PASSING = {"agree", "float32-precision"}
NAMES = ("--map", "*.W=*.kernel", "--map", "*.b=*.bias")


LOCAL = {"norm.gamma": "norm.scale", "norm.beta": "norm.bias"}
MOVING = {"norm.moving_mean": "norm.mean", "norm.moving_variance": "norm.var"}
LINEN_NAMES = [
    *("--map", "*.W=params.*.kernel", "--map", "*.b=params.*.bias"),
    *(part for ours, own in LOCAL.items() for part in ("--map", f"{ours}=params.{own}")),
    *(part for ours, own in MOVING.items() for part in ("--map", f"{ours}=batch_stats.{own}")),
]
NNX_NAMES = [
    *NAMES,
    *(part for ours, own in {**LOCAL, **MOVING}.items() for part in ("--map", f"{ours}={own}")),
]


def thorough(value: str) -> Any:
    return pytest.param(value, marks=pytest.mark.thorough)


def check(folder: Path, source: str, backend: str, *options: str) -> tuple[set[str], list[str]]:
    """Compare a model with the spec; return the findings that differ, and the parts that are not
    compared. All other findings must agree."""
    spec = model_file(folder, SPEC, "small.yaml")
    file = model_file(folder, source, f"net_{len(list(folder.iterdir()))}.py")
    target = f"{file}:model{':start' if 'def start' in source else ''}"
    arguments = ["check", str(spec), "--against", target, "--backend", backend, "--json"]
    chosen = ["--dtype", "float64", "--check", "inference"]
    chosen += ["--check", "values", "--check", "training*"]
    done = CliRunner().invoke(cli, [*arguments, *chosen, *options])
    assert done.exit_code < 2, done.output
    printed = json.loads(done.stdout)
    verdicts = {each["check"]: each["verdict"] for each in printed["results"]}
    left = [part for each in printed["not_compared"] for part in each["what"]]
    assert verdicts.pop("inference") in PASSING
    adam = verdicts.pop("training", None)  # Keras has no Adam like the spec's
    assert left or set(verdicts) == EVERY
    assert adam in (None, verdicts.get("training-sgd"))
    wrong = {check for check, verdict in verdicts.items() if verdict not in PASSING}
    assert done.exit_code == bool(wrong)
    return wrong, left


@pytest.mark.parametrize("backend", ["keras", thorough("keras-torch"), thorough("keras-jax")])
def test_keras_models_use_the_noise_of_the_spec(tmp_path: Path, backend: str) -> None:
    assert check(tmp_path, KERAS, backend, *NAMES) == (set(), [])
    slow = KERAS.replace("0.1", "0.2")
    assert check(tmp_path, slow, backend, *NAMES) == (EVERY, [])


@pytest.mark.parametrize("fault", ["momentum", thorough("after"), thorough("broadcast")])
def test_faults_of_keras_models_in_training_mode_are_seen(tmp_path: Path, fault: str) -> None:
    before, after, findings = FAULTS[fault]
    wrong = KERAS.replace(before, after, 1)
    assert check(tmp_path, wrong, "keras", *NAMES) == (findings, [])


def test_other_random_numbers_of_keras_models_are_named(tmp_path: Path) -> None:
    other = KERAS.replace("lambda h: h", "lambda h: layers.GaussianNoise(0.1)(h)")
    wrong, left = check(tmp_path, other, "keras", *NAMES)
    assert not wrong
    assert "drop.kept" in left[0]
    assert "keras.random.normal" in left[0]


@needs_flax
@pytest.mark.parametrize(("source", "names"), [(LINEN, LINEN_NAMES), (NNX, NNX_NAMES)])
def test_flax_modules_use_the_noise_of_the_spec(
    tmp_path: Path, source: str, names: list[str]
) -> None:
    assert check(tmp_path, source, "jax", "--python", FLAX, *names) == (set(), [])
    slow = source.replace("0.1", "0.2")
    assert check(tmp_path, slow, "jax", "--python", FLAX, *names) == (EVERY, [])


@needs_flax
@pytest.mark.parametrize("fault", ["momentum", thorough("after"), thorough("shared")])
def test_faults_of_flax_modules_in_training_mode_are_seen(tmp_path: Path, fault: str) -> None:
    before, after, findings = FAULTS[fault]
    wrong = LINEN.replace(before, after, 1)
    assert check(tmp_path, wrong, "jax", "--python", FLAX, *LINEN_NAMES) == (findings, [])


@needs_flax
def test_module_without_training_mode_is_named(tmp_path: Path) -> None:
    fixed = LINEN.replace("x, train)", "x)").replace("x, train)", "x)").replace("not train", "True")
    fixed = fixed.replace(", train=False", "")
    wrong, left = check(tmp_path, fixed, "jax", "--python", FLAX, *LINEN_NAMES)
    assert not wrong
    assert "drop.kept" in left[0]
    assert "deterministic" in left[0]
