"""Training mode of Keras, Flax and JAX models: the models use the spec's noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from users_models import model_file

from harness.commands import cli

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
# The change of each planted fault, and the findings that see it.
EVERY = {"outputs", "statistics", "training-sgd"}
FAULTS = {
    "after": ("True", "False", EVERY),
    "rate": ("0.1", "0.2", EVERY),
    "momentum": ("0.99", "0.9", {"statistics"}),
    "broadcast": ("None", "(None, 1, None)", EVERY),
}
PASSING = {"agree", "float32-precision"}
NAMES = ("--map", "*.W=*.kernel", "--map", "*.b=*.bias")


def check(folder: Path, source: str, backend: str, *options: str) -> tuple[set[str], list[str]]:
    """Compare a model with the spec; return the findings that differ, and the parts that are not
    compared. All other findings must agree."""
    spec = model_file(folder, SPEC, "small.yaml")
    file = model_file(folder, source, f"net_{len(list(folder.iterdir()))}.py")
    arguments = ["check", str(spec), "--against", f"{file}:model", "--backend", backend, "--json"]
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


@pytest.mark.parametrize("backend", ["keras", "keras-torch", "keras-jax"])
def test_keras_models_use_the_noise_of_the_spec(tmp_path: Path, backend: str) -> None:
    assert check(tmp_path, KERAS, backend, *NAMES) == (set(), [])
    slow = KERAS.replace("0.1", "0.2")
    assert check(tmp_path, slow, backend, *NAMES) == (EVERY, [])


@pytest.mark.parametrize("fault", ["after", "momentum", "broadcast"])
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
