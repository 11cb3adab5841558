"""Means of parameters in a training: tested beside what is trained, kept, and gone on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sampling import sampled
from small_trainings import Stop, Stopping

from harness.convert import weights
from harness.language.added_slots import AVERAGED
from harness.training import checkpoint
from harness.training.request import TrainRequest, prepare
from harness.training.run import TrainEvents, TrainingRun

SPEC = """
model: mean
summary: Which of two classes a row is of.
source: A test.
sizes: {features: 3, labels: 2}
inputs:
  x: {shape: [batch, features]}
layers:
  out: {layer: dense, units: labels}
equations: logits = out(x)
targets:
  label: {shape: [batch], index: labels}
loss: mean(sparse_cross_entropy(logits, label))
metrics:
  accuracy: mean(accuracy(logits, label))
optimizer: {optimizer: adam, average: 0.9, accumulate: 2}
training:
  batch: 8
  shuffle: true
  phases:
    - {epochs: 3, learning_rate: 0.05}
data: {npz: rows.npz}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    x = random.normal(size=(70, 3))
    np.savez(tmp_path / "rows.npz", x=x, label=(x[:, 0] > 0).astype(np.uint8))
    (tmp_path / "mean.yaml").write_text(SPEC)
    return tmp_path / "mean.yaml"


def made(spec: Path, kept: Path, backend: str = "numpy", events: TrainEvents | None = None):
    request = TrainRequest(str(spec), backend, held_out=0.3, dtype="float64", proof=False)
    return TrainingRun(prepare(request), kept, events)


@pytest.mark.parametrize("backend", sampled(["numpy", "torch", "jax", "keras"], ["numpy"]))
def test_means_are_tested_and_kept(spec: Path, tmp_path: Path, backend: str) -> None:
    with made(spec, tmp_path / "w", backend) as run:
        returned = run.run()
    entry = run.history[-1]
    assert entry["held_out_metrics"].keys() == {"accuracy", "averaged_loss", "averaged_accuracy"}
    assert entry["held_out_metrics"]["averaged_loss"] != entry["held_out_loss"]
    found, kept = weights.load(tmp_path / "w"), checkpoint.load(tmp_path / "w.checkpoint")
    for name, array in found.parameters.items():
        np.testing.assert_array_equal(array, kept.slots[AVERAGED][name])
        np.testing.assert_array_equal(array, returned.parameters[name])
        assert not np.array_equal(array, kept.weights.parameters[name])
    # The means that were tested are those that are kept.
    rows = run.setup.feed.batch(np.concatenate(list(run.setup.feed.held_out())))
    x, label = rows["input.x"], rows["target.label"]
    logits = x @ found.parameters["out.W"] + found.parameters["out.b"]
    right = float(np.mean(logits.argmax(1) == label))
    assert entry["held_out_metrics"]["averaged_accuracy"] == pytest.approx(right)


def test_what_was_cut_off_goes_on_from_what_was_trained(spec: Path, tmp_path: Path) -> None:
    with made(spec, tmp_path / "whole") as whole:
        whole.run()
    with made(spec, tmp_path / "cut", events=Stopping(1, 1)) as cut, pytest.raises(Stop):
        cut.run()
    with made(spec, tmp_path / "cut") as again:
        again.run(resume=True)
    for name in ("", ".checkpoint"):
        load = checkpoint.load if name else weights.load
        one, two = (load(tmp_path / f"{kept}{name}") for kept in ("whole", "cut"))
        both = (one.arrays, two.arrays) if name else (one.parameters, two.parameters)
        for key, array in both[0].items():
            np.testing.assert_array_equal(array, both[1][key])
