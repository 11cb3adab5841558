"""The command ``train``: its output and exit codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.command.declared import build
from harness.command.outcome import CommandResult
from harness.environments.columns import choose_process
from harness.errors import EXIT_FAILED, UsageError
from harness.files import kinds
from harness.files.lock import check_free
from harness.files.user_file import displayed
from harness.language.model import notes_on
from harness.output.printing import console, tell
from harness.output.progress import Progress
from harness.training import checkpoint
from harness.training.options import TrainOptions
from harness.training.proof import Disproved
from harness.training.request import Setup, TrainRequest, prepare
from harness.training.run import Diverged, TrainEvents, TrainingRun

# Progress messages on standard error.


class TrainProgress(TrainEvents):
    """Output during a training: a line for each epoch, and on a terminal also a progress bar."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(console, "training")
        self._epochs, self._steps, self._unit = 0, 0, ""

    def anew(self, place: Path) -> None:
        self.bar.line(f"there is no {displayed(place)} yet: the training begins at its first step")

    def doubted(self, backend: str, doubts: Sequence[str]) -> None:
        self.bar.once(backend, doubts)

    def tried(self, seconds: Mapping[str, float]) -> None:
        by_seconds = sorted(seconds.items(), key=lambda pair: pair[1])
        text = ", ".join(f"{path} {1000 * time:.3g}" for path, time in by_seconds)
        self.bar.line(f"path {by_seconds[0][0]}; milliseconds per step: {text}")

    def proved(self, proof: Mapping[str, Any]) -> None:
        first = f"the first {proof['in_a_row']} steps"
        if proof["steps"]:
            text = f"{first} are correct ({proof['steps']} of them compared with the oracle"
        else:
            text = f"{first} agree in few calls and one by one ({proof['why']}"
        self.bar.line(f"{text}; {proof['seconds']:.1f} s)")

    def began(self, setup: Setup, epoch: int, step: int) -> None:
        self._epochs = len(setup.rates)
        self._steps = len(setup.feed.epoch(epoch))
        self.bar.plan(self._epochs * self._steps, epoch * self._steps + step)
        self.bar.doing("the first steps")
        data, size_text = setup.data, _describe_sizes(setup)
        self._unit = data.unit
        self.bar.line(
            f"{setup.spec.name} on {setup.request.backend}: {data.name}, "
            f"{data.summary()}{size_text}; {self._steps:,} "
            f"steps of {setup.recipe.batch} rows per epoch"
        )
        if setup.spec.model.training is None:
            order = "shuffled" if setup.recipe.order == "shuffled" else "in order"
            self.bar.line(
                f"{setup.spec.name} has no 'training' section: rows are {order}, the learning rate "
                f"is the optimizer's, {setup.rates[0]:g} (--epochs, --batch)"
            )
        if epoch >= self._epochs:
            self.bar.line(f"epochs done already: {epoch}; requested: {self._epochs}; nothing to do")
        elif epoch or step:
            self.bar.line(f"resumes at step {step + 1:,} of epoch {epoch + 1}")

    def stepped(self, epoch: int, step: int, loss: float, rate: float) -> None:
        self.bar.doing(f"loss {loss:.4f}, {rate:,.0f} {self._unit}/s")
        counted = f"epoch {epoch + 1}/{self._epochs}, step {step:,}/{self._steps:,}"
        self.bar.at(epoch * self._steps + step, counted)

    def ended(self, entry: Mapping[str, Any]) -> None:
        left = self.bar.left()
        line = epoch_line(entry, self._epochs, self._unit)
        self.bar.line(line + (f"; {left}" if left else ""))


def epoch_line(entry: Mapping[str, Any], epochs: int, unit: str) -> str:
    """Return a line of text with the losses, metrics, learning rate and speed of an epoch.

    ``entry`` has the fields of :class:`.checkpoint.Epoch`, ``epochs`` is the number of all epochs,
    and ``unit`` is the unit of the speed, e.g. "characters".
    """
    held_out = entry["held_out_loss"]
    other = "" if held_out is None else f", held out {held_out:.4f}"
    metrics = entry["held_out_metrics"].items()
    other += f" ({', '.join(f'{n} {v:.4f}' for n, v in metrics)})" if metrics else ""
    return (
        f"epoch {entry['epoch']}/{epochs}: loss {entry['loss']:.4f}{other}, learning rate "
        f"{entry['learning_rate']:g}, {entry['characters_per_second']:,.0f} {unit}/s"
    )


def _describe_sizes(setup: Setup) -> str:
    """Return text that lists the sizes that differ from the spec's sizes, e.g. because the text has
    more characters."""
    spec_sizes = setup.spec.programs["training"].sizes
    changed = {name: size for name, size in setup.sizes.items() if size != spec_sizes[name]}
    text = ", ".join(
        f"{name} {size} instead of {spec_sizes[name]}" for name, size in changed.items()
    )
    return f" ({text})" if text else ""


def run_train(options: TrainOptions) -> CommandResult | int:
    """Train, and print each epoch. The exit code is 1 if the loss diverges, or if the first steps
    do not agree with the oracle.

    Raises:
        TrainingError: the backend fails.
    """
    column, python, environment = choose_process(options, options.backend)
    process = {"backend": column, "python": python, "environment": environment}
    path = options.weights
    progress = TrainProgress(console(error=True))
    with prepared({**vars(options), **process}, progress) as training:
        for note in notes_on([training.setup.spec]):
            progress.bar.line(note)
        try:
            with progress.bar:
                progress.bar.step(f"starting {column}")
                weights = training.run(options.resume)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(_saved_note(training))
            raise
        except (Diverged, Disproved) as error:
            tell(str(error), error=True)
            return EXIT_FAILED
    data = {"spec": weights.spec, "sizes": dict(weights.sizes), **weights.history}
    return CommandResult(data, "" if path is None else f"weights: {displayed(path)}")


@contextmanager
def prepared(given: Mapping[str, Any], events: TrainEvents | None = None) -> Iterator[TrainingRun]:
    """Check the options ``given`` (option name -> value) of a training. Yield the training; while
    the caller uses it, no other process can write its files.

    Raises:
        HarnessError: an option, the spec or the data are wrong, or the weights cannot be written.
    """
    path: Path | None = given.get("weights")
    resume, force = given.get("resume", False), given.get("force", False)
    request = build(TrainRequest, given)
    if path is not None:
        check_place(path, resume, force)
    with TrainingRun(prepare(request), path, events) as training:
        if path is not None:
            # Check again, because another training may have written there since.
            check_place(path, resume, force, mine=True)
        yield training


def check_place(path: Path, resume: bool, force: bool, mine: bool = False) -> None:
    """Check before the training that the weights can be written to ``path``. No file is changed.

    ``resume`` and ``force`` are the options of the command. ``mine`` is True if this process holds
    the lock of the path.

    Raises:
        UsageError: another training writes to this path. Or weights or a checkpoint exist, and
            neither ``resume`` nor ``force`` says what to do with them.
        FileFault: a file of another kind is at the path, or the path cannot be written.
    """
    if resume and force:
        raise UsageError("--resume continues a training, --force starts over: give only one")
    place = checkpoint.place_of(path)
    existing = [
        p
        for p, kind in ((path, kinds.WEIGHTS), (place, kinds.CHECKPOINT))
        if kinds.check_place(p, kind)
    ]
    if not mine:
        check_free(path)
    if existing and not resume and not force:
        raise UsageError(
            f"{existing[0]} already exists: --resume continues the training, --force replaces it"
        )


def _saved_note(training: TrainingRun) -> str:
    path = training.path
    if path is None:
        return "nothing was saved (--weights FILE saves the trained weights)"
    if not training.has_checkpoint:
        return "no checkpoint was saved yet"
    if not training.has_weights:
        return "no weights were saved yet; --resume continues from the first checkpoint"
    return f"{path} has the weights of the last checkpoint; --resume continues from there"
