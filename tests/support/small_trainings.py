"""Small, fast trainings, from Python and from the command line, and a training that stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from texts import FOX

from harness.cli import cli
from harness.convert import weights
from harness.training.request import Setup, TrainRequest, prepare
from harness.training.run import TrainEvents, TrainingRun
from harness.worker.worker import Worker

TEXT = 40 * FOX
SYSTEM = "lesson6/stateful_lstm"


class Stop(Exception):
    """An exception that simulates a kill: files on disk stay as they are at that moment."""


class Stopping(TrainEvents):
    """A listener that stops the training at a step of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.where = epoch, step

    def stepped(self, epoch: int, step: int, loss: float, rate: float) -> None:
        if (epoch, step) >= self.where:
            raise Stop


def setup(text: Path, **changes: Any) -> Setup:
    given = {"backend": "numpy", "epochs": 2, "batch": 2, "every": 64, "sizes": {"hidden": 5}}
    given |= {"proof": False}
    return prepare(TrainRequest(SYSTEM, text=str(text), **{**given, **changes}))


def train(
    made: Setup, worker: Worker, kept: Path, events: TrainEvents | None = None, **more: bool
) -> weights.Weights:
    with TrainingRun(made, kept, events, worker=worker) as training:
        return training.run(**more)


def harness(text: Path, kept: object, *options: str, spec: str = SYSTEM) -> Result:
    usual = ["--backend", "numpy", "--epochs", "1", "--size", "hidden=5"]
    command = ["train", spec, "--text", str(text), "--weights", str(kept), *usual, *options]
    found = CliRunner().invoke(cli, command)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def content(folder: Path) -> dict[str, bytes]:
    """Return the content of all regular files in a folder."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}
