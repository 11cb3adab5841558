"""The command ``train``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from harness.errors import UsageError
from harness.files import kinds
from harness.files.lock import check_free
from harness.files.user_file import displayed
from harness.language.model import notes_on
from harness.output.printing import console, say, tell
from harness.training import checkpoint
from harness.training.progress import TrainProgress
from harness.training.proof import Disproved
from harness.training.request import TrainRequest, prepare
from harness.training.run import Diverged, TrainingError, TrainingRun
from harness.worker.remote import with_trace


def run_train(
    request: TrainRequest, path: Path | None, resume: bool, force: bool, as_json: bool
) -> int:
    """Train, and print what came of it; returns the exit code."""
    if path is not None:
        check_place(path, resume, force)
    setup = prepare(request)
    progress = TrainProgress(console(error=True))
    for told in notes_on([setup.spec]):
        progress.bar.line(told)
    with TrainingRun(setup, path, progress) as training:
        if path is not None:
            # Again: another training may have come to its end since.
            check_place(path, resume, force, mine=True)
        try:
            with progress.bar:
                progress.bar.step(f"starting {request.backend}")
                made = training.run(resume)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(_kept(training))
            raise
        except (Diverged, Disproved) as error:
            tell(str(error), error=True)
            return 1
        except TrainingError as error:
            tell(with_trace(str(error), error.traceback), error=True)
            return 3
    if as_json:
        say(json.dumps({"spec": made.spec, "sizes": dict(made.sizes), **made.history}))
    elif path is not None:
        tell(f"weights: {displayed(path)}")
    return 0


def check_place(path: Path, resume: bool, force: bool, mine: bool = False) -> None:
    """Check now, and not after an epoch, that files can be kept there; nothing is touched.

    ``mine`` tells that this process has the right to write there.

    Raises:
        UsageError: another training writes there, or has left files and no option says what to do.
        FileFault: something else is there, or nothing can be written.
    """
    if resume and force:
        raise UsageError("--resume continues what is there, --force starts over: give one")
    place = checkpoint.place(path)
    there = [
        p
        for p, kind in ((path, kinds.WEIGHTS), (place, kinds.CHECKPOINT))
        if kinds.check_place(p, kind)
    ]
    if not mine:
        check_free(path)
    if there and not resume and not force:
        raise UsageError(
            f"{there[0]} is there already: --resume continues it, --force starts over in its place"
        )


def _kept(training: TrainingRun) -> str:
    """In words, what an interrupted run leaves, and how to go on."""
    path = training.path
    if path is None:
        return "nothing was kept (--weights FILE keeps what was trained)"
    if not training.kept:
        return "there was no checkpoint yet"
    if not training.saved:
        return "there were no weights yet; --resume continues from the first checkpoint"
    return f"{path} holds the last checkpoint, and --resume continues from it"
