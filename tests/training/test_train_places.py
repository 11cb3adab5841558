"""What a training does to files that are there: nothing, until what replaces them is whole."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_trainings import SYSTEM, TEXT, Stop, Stopping, content, harness, setup, train
from wording import Wording

from harness.convert import weights
from harness.errors import UsageError
from harness.files import kinds
from harness.training import checkpoint
from harness.training.request import Setup
from harness.training.run import Diverged, TrainEvents, TrainingError, TrainingRun
from harness.worker.worker import Worker


class TestForce:
    @pytest.mark.parametrize(
        ("options", "spec"),
        [
            ((), "lesson6/statefull_lstm"),
            (("--backend", "numpi"), SYSTEM),
            (("--dtype", "float8"), SYSTEM),
            (("--path", "fast"), SYSTEM),
            (("--batch", "100000"), SYSTEM),
            (("--seed", str(10**30)), SYSTEM),
            (("--epochs", "0"), SYSTEM),
            (("--env", "x"), SYSTEM),
            (("--python", "/absent"), SYSTEM),
            (("--resume",), SYSTEM),
        ],
    )
    def test_what_cannot_be_done_leaves_all_as_it_was(
        self, options: tuple[str, ...], spec: str, text: Path, kept: Path, worker: Worker
    ) -> None:
        train(setup(text), worker, kept)
        before = content(kept.parent)
        assert "kept.checkpoint" in before
        assert harness(text, kept, "--force", *options, spec=spec).exit_code in (2, 3)
        assert content(kept.parent) == before

    @pytest.mark.parametrize("place", ["kept", "kept.checkpoint"])
    def test_what_is_not_ours_is_never_replaced(
        self, place: str, tmp_path: Path, text: Path, kept: Path
    ) -> None:
        (tmp_path / place).write_text("model: mine\n")
        for options in (("--force",), ("--resume",), ()):
            found = harness(text, kept, *options)
            assert (found.exit_code, "this is a spec, not" in found.output) == (2, True)
        assert (tmp_path / place).read_text() == "model: mine\n"

    def test_its_own_text_is_never_replaced(self, text: Path) -> None:
        found = harness(text, text, "--force")
        assert (found.exit_code, "this is a text, not weights" in found.output) == (2, True)
        assert text.read_text() == TEXT

    @pytest.mark.parametrize("name", ["/dev/null", "/dev/zero", "pipe", "folder"])
    def test_what_is_no_file_is_never_replaced(self, name: str, tmp_path: Path, text: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "folder").mkdir()
        before = (tmp_path / name).stat()
        for option in ("--force", "--resume"):
            found = harness(text, tmp_path / name, option)
            assert (found.exit_code, f"{name}: this is " in found.output) == (2, True)
        after = (tmp_path / name).stat()
        assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)

    def test_old_files_stay_until_the_new_ones_are_whole(
        self, text: Path, kept: Path, worker: Worker
    ) -> None:
        train(setup(text), worker, kept)
        old = kept.read_bytes()
        with pytest.raises(Stop):
            train(setup(text, seed=1), worker, kept, Stopping(0, 1))
        assert kept.read_bytes() == old
        assert checkpoint.load(checkpoint.place_of(kept)).position["steps"] == 0
        # The old run cannot be taken up for the new one, nor the new one for the old one.
        with pytest.raises(UsageError, match="another seed"):
            train(setup(text), worker, kept, resume=True)
        found = train(setup(text, seed=1), worker, kept, resume=True)
        expected = train(setup(text, seed=1), worker, kept.with_name("whole"))
        np.testing.assert_equal(found.parameters, expected.parameters)
        np.testing.assert_equal(weights.load(kept).parameters, expected.parameters)

    def test_a_run_like_the_old_one_begins_anew(
        self, text: Path, kept: Path, worker: Worker
    ) -> None:
        """The same facts: only the run itself tells them apart."""
        train(setup(text), worker, kept)
        with pytest.raises(Stop):
            train(setup(text), worker, kept, Stopping(0, 1))
        begun: list[tuple[int, int]] = []

        class Telling(TrainEvents):
            def began(self, setup: Setup, epoch: int, step: int) -> None:
                begun.append((epoch, step))

        train(setup(text), worker, kept, Telling(), resume=True)
        assert begun == [(0, 0)]

    @pytest.mark.parametrize("step", [0, 64])
    def test_killed_between_a_checkpoint_and_its_weights(
        self, step: int, text: Path, kept: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train(setup(text), worker, kept)
        old, save = kept.read_bytes(), weights.save

        def killed(path: Path, made: weights.Weights, kind: kinds.Kind = kinds.WEIGHTS) -> None:
            if kind is kinds.WEIGHTS:
                raise Stop
            save(path, made, kind)

        monkeypatch.setattr(weights, "save", killed)
        with pytest.raises(Stop):
            train(setup(text, batch=1), worker, kept, Stopping(0, 1) if not step else None)
        monkeypatch.undo()
        assert kept.read_bytes() == old
        found = train(setup(text, batch=1), worker, kept, resume=True)
        assert weights.load(kept).history["steps"] == found.history["steps"] > 0

    def test_a_backend_that_does_not_start_leaves_all(self, text: Path, kept: Path) -> None:
        made = setup(text, python="/bin/false")
        for path in (kept, checkpoint.place_of(kept)):
            weights.save(path, weights.Weights("x", "", {}, {}, {}), kind=_kind_at(path))
        before = content(kept.parent)
        with TrainingRun(made, kept) as training, pytest.raises(TrainingError):
            training.run()
        assert content(kept.parent) == before

    @pytest.mark.parametrize("module", ["checkpoint", "weights"])
    def test_an_interruption_right_after_a_file_was_written_knows_of_it(
        self, text: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, module: str
    ) -> None:
        written = {"checkpoint": checkpoint, "weights": weights}[module]
        save = written.save

        def interrupted(path: Path, *given: Any, **others: Any) -> None:
            save(path, *given, **others)
            if path.name == kept.name or module == "checkpoint":
                raise KeyboardInterrupt

        monkeypatch.setattr(written, "save", interrupted)
        with TrainingRun(setup(text), kept) as training, pytest.raises(KeyboardInterrupt):
            training.run()
        assert (training.has_checkpoint, training.has_weights) == (True, module == "weights")

    def test_empty_files_need_no_force(self, text: Path, kept: Path) -> None:
        kept.touch()
        assert harness(text, kept).exit_code == 0
        assert weights.load(kept).spec == SYSTEM

    def test_a_run_that_diverges_at_once_does_not_call_the_old_weights_good(
        self, text: Path, kept: Path, worker: Worker
    ) -> None:
        train(setup(text), worker, kept)
        old = kept.read_bytes()
        with pytest.raises(Diverged) as caught:
            train(replace(setup(text), rates=[1e30, 1e30]), worker, kept)
        assert "last good" not in str(caught.value)
        assert kept.read_bytes() == old


def _kind_at(path: Path) -> kinds.Kind:
    return kinds.CHECKPOINT if path.suffix else kinds.WEIGHTS


@pytest.mark.parametrize("length", [245, 255, 256, 300])
def test_a_name_that_leaves_no_room_for_the_checkpoint(
    length: int, tmp_path: Path, text: Path, wording: Wording
) -> None:
    found = harness(text, tmp_path / ("w" * length))
    assert found.exit_code == 2
    wording.line(found.output, "255")
    assert [p.name for p in tmp_path.iterdir()] == ["text.txt"]


def test_the_longest_name(tmp_path: Path, text: Path) -> None:
    path = tmp_path / ("w" * 244)
    assert harness(text, path).exit_code == 0
    assert len(checkpoint.place_of(path).name) == 255
