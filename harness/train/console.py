"""The command ``train``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from harness.errors import UsageError
from harness.train import checkpoint
from harness.train.progress import TrainProgress
from harness.train.request import TrainRequest, prepare
from harness.train.run import Diverged, Training, TrainingError

INTERRUPTED = 130


def run_train(
    request: TrainRequest, path: Path | None, resume: bool, force: bool, as_json: bool
) -> int:
    """Train, and print what came of it; returns the exit code."""
    if path is not None:
        _check_place(path, resume, force)
    setup = prepare(request)
    errors = Console(stderr=True)
    progress = TrainProgress(errors)
    with Training(setup, path, progress) as training:
        try:
            with progress.bar:
                made = training.run(resume)
        except KeyboardInterrupt:
            errors.print(f"interrupted; {_kept(path)}", highlight=False, soft_wrap=True)
            return INTERRUPTED
        except (Diverged, TrainingError) as error:
            click.echo(str(error), err=True)
            return 1 if isinstance(error, Diverged) else 3
    if as_json:
        print(json.dumps({"spec": made.spec, "sizes": dict(made.sizes), **made.history}))
    elif path is not None:
        print(f"weights: {path}")
    return 0


def _check_place(path: Path, resume: bool, force: bool) -> None:
    """:class:`UsageError` now, and not after an epoch, for a place that cannot be written to."""
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    there = [p for p in (path, checkpoint.place(path)) if p.exists()]
    if there and force:
        for old in there:
            old.unlink()
    elif there and not resume:
        raise UsageError(
            f"{there[0]} is there already: --resume goes on with it, --force begins anew in its "
            "place"
        )


def _kept(path: Path | None) -> str:
    if path is None:
        return "nothing was kept (--weights FILE keeps what was trained)"
    if not checkpoint.place(path).exists():
        return "there was no checkpoint yet"
    return f"{path} holds the last checkpoint, and --resume goes on from it"
