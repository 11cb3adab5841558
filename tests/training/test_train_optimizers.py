"""Training with what a model says of its optimizer: it learns, everywhere the same, and goes on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampling import sampled
from small_trainings import Stop, Stopping

from harness.training.request import TrainRequest, prepare
from harness.training.run import TrainEvents, TrainingRun

BACKENDS = ("numpy", "torch", "jax", "keras", "keras-torch", "keras-jax")
OPTIMIZER = """\
optimizer:
  optimizer: lamb
  learning_rate: 0.02
  weight_decay: 0.01 / t
  schedule: warmup_cosine(t, 4, 400)
  total: {square: g * g}
  gradient: g * minimum(1, 0.5 / sqrt(square))
  groups:
    - {parameters: "*.b*", weight_decay: 0}
training:
"""
# Slots of which not every parameter has one, and of other shapes; a mean that is tested.
OF_MATRICES = """\
optimizer: {optimizer: adafactor, learning_rate: 0.02, average: 0.9}
training:
"""
# No slots: of the optimizer nothing goes on but the number of the step.
WITHOUT_SLOTS = """\
optimizer: {optimizer: sgd, learning_rate: 0.05, schedule: "minimum(1, t / 200)"}
training:
"""


@pytest.fixture(
    params=[OPTIMIZER, OF_MATRICES, WITHOUT_SLOTS], ids=["lamb", "adafactor", "without slots"]
)
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A system of Lesson 6 with another optimizer."""
    text = files("harness.specs").joinpath("models/lesson6/stateful_lstm.yaml").read_text("utf-8")
    before, _, after = text.replace("lesson6/stateful_lstm", "tuned").partition("optimizer:")
    path = tmp_path / "tuned.yaml"
    path.write_text(before + request.param + after.partition("training:\n")[2])
    return path


def trained(
    spec: Path, text: Path, kept: Path, backend: str, events: TrainEvents | None = None, **more: Any
) -> tuple[dict[str, np.ndarray], list[float]]:
    """The parameters and the losses of two epochs."""
    given = TrainRequest(
        str(spec),
        text=str(text),
        backend=backend,
        dtype="float64",
        epochs=2,
        batch=1,
        every=64,
        sizes={"hidden": 5},
        proof=False,
    )
    with TrainingRun(prepare(given), kept, events) as training:
        weights = training.run(**more)
    return dict(weights.parameters), [entry["loss"] for entry in training.history]


@pytest.mark.parametrize("backend", sampled(BACKENDS, ("numpy", "torch")))
def test_a_model_learns_with_all_that_it_says(
    spec: Path, text: Path, tmp_path: Path, backend: str
) -> None:
    """A run that is stopped and taken up, at the step where it was, comes to the same."""
    wanted, losses = trained(spec, text, tmp_path / "straight", "numpy")
    assert losses == sorted(losses, reverse=True)
    kept = tmp_path / "stopped"
    with pytest.raises(Stop):
        trained(spec, text, kept, backend, Stopping(1, 64))
    found, _ = trained(spec, text, kept, backend, resume=True)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-11)
