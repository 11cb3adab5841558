"""What lies there as a run is taken up: its weights, its checkpoint, or something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_trainings import content, harness, setup, train

from harness.convert import weights
from harness.convert.weights import WeightsError
from harness.errors import UsageError
from harness.training import checkpoint
from harness.worker.worker import Worker


def test_more_epochs_are_done_than_asked_for(text: Path, kept: Path) -> None:
    assert harness(text, kept, "--epochs", "2").exit_code == 0
    before = content(kept.parent)
    found = harness(text, kept, "--epochs", "1", "--resume")
    assert found.exit_code == 0
    assert "epochs done already: 2; requested: 1; nothing to do" in found.output
    assert "resumes at" not in found.output
    assert content(kept.parent) == before


def test_a_text_that_has_moved_is_the_same_one(text: Path, kept: Path) -> None:
    assert harness(text, kept).exit_code == 0
    moved = text.rename(text.with_name("moved.txt"))
    found = harness(moved, kept, "--epochs", "2", "--resume")
    assert found.exit_code == 0, found.output
    moved.write_text(moved.read_text().replace("e", "o"))
    found = harness(moved, kept, "--epochs", "3", "--resume")
    assert (found.exit_code, "with another text: sha256" in found.output) == (2, True)


class TestResume:
    def test_weights_without_a_checkpoint_are_not_trained_over(
        self, text: Path, kept: Path, worker: Worker
    ) -> None:
        train(setup(text), worker, kept)
        checkpoint.place_of(kept).unlink()
        before = kept.read_bytes()
        found = harness(text, kept, "--resume")
        assert (found.exit_code, "kept.checkpoint in its folder" in found.output) == (2, True)
        assert "missing" in found.output
        assert kept.read_bytes() == before

    def test_a_checkpoint_without_weights_is_enough(
        self, text: Path, kept: Path, worker: Worker
    ) -> None:
        train(setup(text, epochs=1), worker, kept)
        kept.unlink()
        train(setup(text), worker, kept, resume=True)
        assert len(weights.load(kept).history["epochs"]) == 2

    def test_weights_of_something_else_beside_a_checkpoint_stay(
        self, text: Path, kept: Path, worker: Worker
    ) -> None:
        made = train(setup(text, epochs=1), worker, kept)
        other = kept.with_name("other")
        train(setup(text), worker, other)
        for history in ({"imported": {}}, weights.load(other).history):
            weights.save(kept, replace(made, history=history))
            before = content(kept.parent)
            with pytest.raises(UsageError, match=r"has weights of another training than kept\.ch"):
                train(setup(text), worker, kept, resume=True)
            assert content(kept.parent) == before

    def test_damaged_weights_beside_a_checkpoint(
        self, text: Path, kept: Path, worker: Worker
    ) -> None:
        train(setup(text, epochs=1), worker, kept)
        data = bytearray(kept.read_bytes())
        data[-1] ^= 1
        kept.write_bytes(data)
        with pytest.raises(WeightsError, match=r"damaged.*checkpoint in its folder is undamaged"):
            train(setup(text), worker, kept, resume=True)
        kept.rename(kept.with_name("away"))
        train(setup(text), worker, kept, resume=True)
