"""Training in bfloat16 and float16, with what a checkpoint keeps of the scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_trainings import Stop, Stopping, harness, setup, train
from wording import Wording

from harness.convert import weights
from harness.convert.weights import WeightsError
from harness.files import kinds
from harness.program.updates import GOOD, SCALE, UPDATES
from harness.training import checkpoint
from harness.training.run import Diverged
from harness.worker.worker import Worker


def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(
    text: Path, kept: Path, worker: Worker
) -> None:
    whole = train(setup(text, dtype="float16"), worker, kept.with_name("whole"))
    with pytest.raises(Stop):
        train(setup(text, dtype="float16"), worker, kept, Stopping(0, 128))
    found = checkpoint.load(checkpoint.place_of(kept))
    steps = found.position["steps"]
    assert found.scaling == {SCALE: 1024, GOOD: steps, UPDATES: steps}
    made = train(setup(text, dtype="float16"), worker, kept, resume=True)
    assert made.parameters.keys() == whole.parameters.keys()
    for name, array in whole.parameters.items():
        np.testing.assert_array_equal(made.parameters[name], array)


def test_a_checkpoint_without_its_scale_is_none_of_float16(
    text: Path, kept: Path, worker: Worker
) -> None:
    train(setup(text, dtype="float16", epochs=1), worker, kept)
    place = checkpoint.place_of(kept)
    made = weights.load(place, kinds.CHECKPOINT)
    for change, words in (
        ({f"scaling/{GOOD}": None}, "its loss scale has 'loss.scale', 'updates', expected"),
        ({f"scaling/{SCALE}": np.float32(0)}, "its loss scale is 0.0 after"),
    ):
        statistics = {**made.statistics, **change}
        statistics = {n: np.asarray(a) for n, a in statistics.items() if a is not None}
        weights.save(place, replace(made, statistics=statistics), kinds.CHECKPOINT)
        with pytest.raises(WeightsError, match=words):
            train(setup(text, dtype="float16"), worker, kept, resume=True)


def test_a_scale_that_is_nothing_ends_the_run(
    text: Path, kept: Path, worker: Worker, wording: Wording
) -> None:
    train(setup(text, dtype="float16", epochs=1), worker, kept)
    place, before = checkpoint.place_of(kept), kept.read_bytes()
    made = weights.load(place, kinds.CHECKPOINT)
    statistics = {**made.statistics, f"scaling/{SCALE}": np.asarray(2.0**-40, np.float32)}
    weights.save(place, replace(made, statistics=statistics), kinds.CHECKPOINT)
    with wording.raises(Diverged, "loss"):
        train(setup(text, dtype="float16"), worker, kept, resume=True)
    assert kept.read_bytes() == before


def test_its_first_steps_are_proved(text: Path, kept: Path) -> None:
    found = harness(text, kept, "--dtype", "bfloat16")
    assert found.exit_code == 0, found.output
    assert weights.load(kept).history["proof"]["steps"] == 3
