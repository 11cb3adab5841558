"""What a training does to files that are there: nothing, until what replaces them is whole."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from texts import FOX

from harness.cli import cli
from harness.convert import weights
from harness.convert.weights import WeightsError
from harness.errors import HarnessError, UsageError
from harness.files import kinds
from harness.files.lock import check_free, held
from harness.train import checkpoint, taken_up
from harness.train.events import TrainEvents
from harness.train.request import Setup, TrainRequest, prepare
from harness.train.run import Diverged, Training, TrainingError
from harness.worker.worker import Worker

TEXT = 40 * FOX
SYSTEM = "lesson6/stateful_lstm"


class Stop(Exception):
    """Stands for a kill: what is on the disk at that moment stays."""


class Stopping(TrainEvents):
    """Stops after some steps of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.where = epoch, step

    def stepped(self, epoch: int, step: int, loss: float, rate: float) -> None:
        if (epoch, step) >= self.where:
            raise Stop


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(TrainRequest(SYSTEM, "numpy").launch) as started:
        yield started


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where weights go."""
    return tmp_path / "kept"


def setup(text: Path, **changes: Any) -> Setup:
    given = {"backend": "numpy", "epochs": 2, "batch": 2, "every": 64, "sizes": {"hidden": 5}}
    given |= {"proof": False}
    return prepare(TrainRequest(SYSTEM, text=str(text), **{**given, **changes}))


def train(
    made: Setup, worker: Worker, kept: Path, events: TrainEvents | None = None, **more: bool
) -> weights.Weights:
    with Training(made, kept, events, worker=worker) as training:
        return training.run(**more)


def harness(text: Path, kept: object, *options: str, spec: str = SYSTEM) -> Result:
    usual = ["--backend", "numpy", "--epochs", "1", "--size", "hidden=5"]
    command = ["train", spec, "--text", str(text), "--weights", str(kept), *usual, *options]
    found = CliRunner().invoke(cli, command)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def content(folder: Path) -> dict[str, bytes]:
    """All regular files of a folder."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def test_more_epochs_are_done_than_asked_for(text: Path, kept: Path) -> None:
    assert harness(text, kept, "--epochs", "2").exit_code == 0
    before = content(kept.parent)
    found = harness(text, kept, "--epochs", "1", "--resume")
    assert found.exit_code == 0
    assert "epochs done already: 2; asked for: 1; none is left" in found.output
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
        assert checkpoint.load(checkpoint.place(kept)).position["steps"] == 0
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
        for path in (kept, checkpoint.place(kept)):
            weights.save(path, weights.Weights("x", "", {}, {}, {}), kind=_kind_at(path))
        before = content(kept.parent)
        with Training(made, kept) as training, pytest.raises(TrainingError):
            training.run()
        assert content(kept.parent) == before

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


class TestResume:
    def test_weights_without_a_checkpoint_are_not_trained_over(
        self, text: Path, kept: Path, worker: Worker
    ) -> None:
        train(setup(text), worker, kept)
        checkpoint.place(kept).unlink()
        before = kept.read_bytes()
        found = harness(text, kept, "--resume")
        assert (found.exit_code, "no checkpoint kept.checkpoint beside" in found.output) == (
            2,
            True,
        )
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
            with pytest.raises(UsageError, match=r"holds other weights than the run of kept\.ch"):
                train(setup(text), worker, kept, resume=True)
            assert content(kept.parent) == before

    def test_damaged_weights_beside_a_checkpoint(
        self, text: Path, kept: Path, worker: Worker
    ) -> None:
        train(setup(text, epochs=1), worker, kept)
        data = bytearray(kept.read_bytes())
        data[-1] ^= 1
        kept.write_bytes(data)
        with pytest.raises(WeightsError, match=r"damaged.*checkpoint beside it is whole"):
            train(setup(text), worker, kept, resume=True)
        kept.rename(kept.with_name("away"))
        train(setup(text), worker, kept, resume=True)


HOLD = """
import sys, pathlib
from harness.files.lock import held
with held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(kept: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the right to write there."""
    command = [sys.executable, "-c", HOLD, str(kept)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestLock:
    def test_a_second_training_is_told_who_holds_it(
        self, holder: subprocess.Popen[str], text: Path, kept: Path, worker: Worker
    ) -> None:
        for options in ((), ("--force",), ("--resume",)):
            found = harness(text, kept, *options)
            assert found.exit_code == 2
            assert f"is being written by process {holder.pid} on " in found.output
            assert "wait for it to end, stop it, or give another --weights" in found.output
        with pytest.raises(UsageError, match="is being written by"):
            train(setup(text), worker, kept)
        arguments = ["import", SYSTEM, str(text), "--from", "jax", "--weights", str(kept)]
        imported = CliRunner().invoke(cli, arguments)
        assert (imported.exit_code, f"process {holder.pid}" in imported.output) == (2, True)
        # Through a link it is the same file; beside it is another.
        link = kept.with_name("link")
        link.symlink_to(kept)
        with pytest.raises(UsageError, match="is being written by"):
            check_free(link)
        assert harness(text, kept.with_name("other")).exit_code == 0

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
    def test_it_ends_with_its_process(
        self, end: signal.Signals | None, holder: subprocess.Popen[str], text: Path, kept: Path
    ) -> None:
        if end is None:
            assert holder.stdin is not None
            holder.stdin.close()
        else:
            holder.send_signal(end)
        holder.wait()
        assert harness(text, kept).exit_code == 0
        assert not list(kept.parent.glob(".harness-*"))

    def test_a_name_of_any_length_has_a_lock(self, tmp_path: Path) -> None:
        path = tmp_path / ("é" * 127)
        with held(path):
            assert [p.name.startswith(".harness-") for p in tmp_path.iterdir()] == [True]
            with pytest.raises(UsageError, match=f"process {os.getpid()} on"), held(path):
                pass
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, Path.write_text])
    def test_what_has_the_name_of_a_lock_and_is_none_stays(
        self, make: Callable[..., Any], kept: Path
    ) -> None:
        with held(kept):
            (lock,) = kept.parent.iterdir()
        make(lock, *(["mine"] if make is Path.write_text else []))
        mode = lock.stat().st_mode
        with pytest.raises(UsageError, match="cannot be taken"), held(kept):
            pass
        assert lock.stat().st_mode == mode

    def test_a_link_in_the_place_of_a_lock_is_not_followed(self, kept: Path) -> None:
        with held(kept):
            (lock,) = kept.parent.iterdir()
        precious = kept.with_name("precious")
        precious.touch()
        lock.symlink_to(precious)
        with pytest.raises(UsageError, match="cannot be taken"), held(kept):
            pass
        assert precious.read_bytes() == b""

    def test_of_many_at_once_one_goes_on(self, kept: Path) -> None:
        """Each takes it, counts in a file that only it may write, and gives it back."""
        program = (
            "import sys, pathlib\nfrom harness.errors import UsageError\n"
            "from harness.files.lock import held\npath, done = pathlib.Path(sys.argv[1]), 0\n"
            "while done < 50:\n"
            "    try:\n"
            "        with held(path):\n"
            "            path.write_text(str(int(path.read_text()) + 1)); done += 1\n"
            "    except UsageError: pass\n"
        )
        kept.write_text("0")
        command = [sys.executable, "-c", program, str(kept)]
        running = [subprocess.Popen(command) for _ in range(3)]
        assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
        assert kept.read_text() == "150"


@pytest.mark.parametrize("length", [245, 255, 256, 300])
def test_a_name_that_leaves_no_room_for_the_checkpoint(
    length: int, tmp_path: Path, text: Path
) -> None:
    found = harness(text, tmp_path / ("w" * length))
    assert found.exit_code == 2
    assert "is too long, at most 255 are allowed; choose a shorter one" in found.output
    assert [p.name for p in tmp_path.iterdir()] == ["text.txt"]


def test_the_longest_name(tmp_path: Path, text: Path) -> None:
    path = tmp_path / ("w" * 244)
    assert harness(text, path).exit_code == 0
    assert len(checkpoint.place(path).name) == 255


# Checkpoints that somebody has made, with a right checksum.

WRONG: tuple[Any, ...] = (None, [], {}, "text", True, -1, 1.5, 2**70, [[1]], {"a": {}})


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory, worker: Worker) -> Path:
    """A checkpoint in the middle of the second epoch."""
    folder = tmp_path_factory.mktemp("genuine")
    (folder / "text.txt").write_text(TEXT)
    with pytest.raises(Stop):
        train(setup(folder / "text.txt", batch=1), worker, folder / "kept", Stopping(1, 128))
    return folder / "kept"


@pytest.fixture(scope="module")
def made(genuine: Path) -> Setup:
    """The run that it is of."""
    return setup(genuine.with_name("text.txt"), batch=1)


def rewritten(
    genuine: Path, path: Path, change: Callable[[dict[str, Any]], None], **more: Any
) -> None:
    """A checkpoint like the genuine one, but for a change in what it tells of its run."""
    whole = weights.load(checkpoint.place(genuine), kinds.CHECKPOINT)
    history = copy.deepcopy(dict(whole.history))
    change(history)
    weights.save(checkpoint.place(path), replace(whole, history=history, **more), kinds.CHECKPOINT)


def test_the_genuine_one_is_taken_up(genuine: Path, made: Setup) -> None:
    found = taken_up.find(genuine, made)
    assert found is not None
    assert found.position["step"] == 64


FIELDS = (
    *(("run",), ("text",), ("seed",), ("dtype",), ("sizes",), ("recipe",), ("backend",)),
    *(("path",), ("steps",), ("epochs",), ("position",), ("text", "sha256"), ("text", "name")),
    *(("position", part) for part in ("epoch", "step", "steps", "sums")),
    *(("position", "sums", 0), ("position", "sums", 0, 0), ("position", "sums", 0, 1)),
    *(("epochs", 0, part) for part in ("epoch", "loss", "curve", "seconds", "memory")),
    ("epochs", 0),
)


@pytest.mark.parametrize("place", FIELDS, ids=lambda place: ".".join(map(str, place)))
def test_a_field_that_is_missing_or_of_another_type(
    place: tuple[Any, ...], genuine: Path, tmp_path: Path, made: Setup
) -> None:
    *above, last = place

    def holder(history: Any) -> Any:
        for part in above:
            history = history[part]
        return history

    original = holder(dict(weights.load(checkpoint.place(genuine), kinds.CHECKPOINT).history))[last]

    def remove(history: dict[str, Any]) -> None:
        del holder(history)[last]

    def replaced(value: Any) -> Callable[[dict[str, Any]], None]:
        def change(history: dict[str, Any]) -> None:
            holder(history)[last] = value

        return change

    # A whole number may stand for a float.
    right = {type(original), *([int] if isinstance(original, float) else [])}
    changes = [remove, *(replaced(value) for value in WRONG if type(value) not in right)]
    for change in changes:
        rewritten(genuine, tmp_path / "kept", change)
        with pytest.raises(HarnessError) as caught:
            taken_up.find(tmp_path / "kept", made)
        assert "kept.checkpoint" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": 10**9}, "an epoch has .* steps, and it goes on after 1,000,000,000"),
        ({"step": 128}, "it is after .* steps, at step 129 of epoch 2"),
        ({"steps": 3}, "it is after 3 steps"),
        ({"sums": []}, "not of as many rows"),
        ({"epoch": 10**12}, "goes on at number 1,?000"),
        ({"epoch": 0}, "it has 1 epochs that are done, and goes on at number 1"),
    ],
)
def test_a_position_that_no_run_can_have(
    change: dict[str, Any], words: str, genuine: Path, tmp_path: Path, made: Setup
) -> None:
    rewritten(genuine, tmp_path / "kept", lambda history: history["position"].update(change))
    with pytest.raises(WeightsError, match=words):
        taken_up.find(tmp_path / "kept", made)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("slot/m/embed.table", None, "the optimizer's 'm'|the optimizer's m is not of the names"),
        (
            "slot/m/embed.table",
            np.ones(3, np.float32),
            "the optimizer's m is not of the names",
        ),
        ("slot/x/embed.table", np.ones(3, np.float32), "it keeps .*'x'.* of the optimizer"),
        ("state/h", None, "the state is not of the names and shapes"),
        ("state/h", np.ones((1, 6), np.float32), "the state is not of the names and shapes"),
        ("state/h", np.full((1, 5), np.nan, np.float32), "'state/h' has numbers that are not"),
        (
            "norm.moving_mean",
            np.full(42, np.inf, np.float32),
            "numbers of norm.moving_mean are NaN",
        ),
    ],
)
def test_arrays_that_no_run_can_have(
    name: str, array: Any, words: str, genuine: Path, tmp_path: Path, made: Setup
) -> None:
    whole = weights.load(checkpoint.place(genuine), kinds.CHECKPOINT)
    statistics = {n: a for n, a in whole.statistics.items() if n != name}
    assert name.startswith("slot/x") or len(statistics) < len(whole.statistics)
    if array is not None:
        statistics[name] = array
    rewritten(genuine, tmp_path / "kept", lambda _: None, statistics=statistics)
    with pytest.raises(WeightsError, match=words):
        taken_up.find(tmp_path / "kept", made)
