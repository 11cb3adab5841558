"""Input files of a report. Their kind (records, speeds or weights) is recognised by their
content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from harness.checking.pairs import describe_pairs, read_pairs
from harness.errors import UsageError
from harness.files import kinds
from harness.files.forms import Form, Malformed, Number, formed
from harness.files.user_file import FileFault, displayed
from harness.output.shell import command_line
from harness.results.cell import Cell, CellResult
from harness.results.file import read_records
from harness.results.lines import CheckedModel, Done, Head, Result
from harness.results.records import Records
from harness.results.speeds import SpeedFile

# The number of commands shown: the last commands that wrote to the files.
MOST_COMMANDS = 8
ACCEPTED_FILES = (
    "records of 'harness check', results of 'harness bench', or weights of 'harness train'"
)


class EpochFigures(Form):
    """An epoch of a training: its mean loss, the losses during the epoch (``curve``), and the
    held-out loss."""

    epoch: int
    loss: Number
    curve: list[Number]
    held_out_loss: Number | None = None
    held_out_metrics: dict[str, Number] = Field(default_factory=dict)
    characters_per_second: Number | None = None


class TrainedHistory(Form):
    """The history that is stored with trained weights: the backend that trained them, and the
    results of every epoch."""

    backend: str = ""
    dtype: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    epochs: list[EpochFigures]


@dataclass(frozen=True)
class CheckRun:
    """A record file: the results of ``harness check``, from one or more runs that wrote to the same
    file."""

    name: str
    records: Records

    @property
    def heads(self) -> Sequence[Head]:
        """The head (first line) of each run that wrote to the file. A head has the run's options
        and versions."""
        return self.records.of_kind(Head)

    @property
    def cells(self) -> Mapping[Cell, CellResult]:
        """A dictionary from each finished cell to its result."""
        return self.records.ended

    @property
    def started(self) -> str:
        """The time when the last run that wrote to the file started, in UTC."""
        return self.heads[-1].started if self.heads else ""

    @property
    def seconds(self) -> float | None:
        """The seconds of all runs together; None if a run did not finish, or if the file was merged
        from others."""
        taken = [line.seconds for line in self.records.of_kind(Done)]
        return sum(taken) if taken and len(taken) == len(self.heads) else None

    @property
    def models(self) -> dict[str, CheckedModel]:
        """A dictionary from spec to the description of its model; empty if the file has no
        descriptions."""
        found: dict[str, CheckedModel] = {}
        for head in self.heads:
            found |= head.models
        specs = {cell.spec for cell in self.cells}
        return {name: model for name, model in found.items() if name in specs}

    @property
    def comparisons(self) -> int | None:
        """The number of compared tensors and tested properties; None if the file is from an older
        version that did not store it."""
        if any(line.compared is None for line in self.records.of_kind(Result)):
            return None
        return sum(f.comparisons for result in self.cells.values() for f in result.findings)

    def pairs(self, *, every: bool) -> list[str]:
        """Return lines of text that say how closely backends agree with each other. Without
        ``every``, only the pairs that agree least have a line."""
        found = read_pairs(self.records)
        return describe_pairs(found, self.cells.values(), every=every, others="all are below")

    @property
    def versions(self) -> dict[str, str]:
        """A dictionary from backend to framework version."""
        return {cell.backend: r.version for cell, r in self.cells.items() if r.version}


@dataclass(frozen=True)
class BenchRun:
    """A file of speeds from ``harness bench``."""

    name: str
    file: SpeedFile

    @property
    def started(self) -> str:
        """The time when the file was made, in UTC."""
        return self.file.datetime[:19] + "Z"

    @property
    def cut_short(self) -> bool:
        """True if the run was interrupted."""
        return self.file.harness.incomplete is not None

    @property
    def versions(self) -> dict[str, str]:
        """A dictionary from backend to the versions of its packages, as text."""
        return {
            backend: said.versions_text for backend, said in self.file.environment.workers.items()
        }


@dataclass(frozen=True)
class TrainedWeights:
    """A file of trained weights: its name, its spec, and the history of the training."""

    name: str
    spec: str
    history: TrainedHistory


@dataclass(frozen=True)
class Inputs:
    """The input files of a report: at most one record file (``check``), and any number of files of
    speeds and of weights."""

    check: CheckRun | None = None
    benches: Sequence[BenchRun] = ()
    trainings: Sequence[TrainedWeights] = ()

    @property
    def commands(self) -> list[str]:
        """The last commands that wrote to the input files, at most :data:`MOST_COMMANDS`. Runs that
        were started from Python have no command."""
        ran = [[*head.arguments] for head in (self.check.heads if self.check else ())]
        ran += [command for run in self.benches for command in run.file.harness.commands]
        every = dict.fromkeys(command_line(["harness", *words]) for words in ran if words)
        return [*every][-MOST_COMMANDS:]

    def label_of(self, run: BenchRun) -> str:
        """Return the name of a file of speeds, to label its charts. Return an empty text if the
        report has only one file of speeds."""
        return run.name if len(self.benches) > 1 else ""


def read_inputs(paths: Sequence[Path], what: str = "a report") -> Inputs:
    """Read all input files of a report. ``what`` names the output, e.g. "a report", in the error
    message for two record files.

    Raises:
        UsageError: a file is of a wrong kind or damaged, or there are two record files.
        HarnessError: a file cannot be read.
    """
    checks: list[CheckRun] = []
    benches: list[BenchRun] = []
    trainings: list[TrainedWeights] = []
    for path in paths:
        read = read_any(path)
        if isinstance(read, CheckRun):
            checks.append(read)
        elif isinstance(read, BenchRun):
            benches.append(read)
        else:
            trainings.append(read)
    if len(checks) > 1:
        named = ", ".join(run.name for run in checks)
        raise UsageError(
            f"{what} takes the records of one run, and {named} are records of {len(checks)} runs; "
            "join shards and machines with 'harness merge', or give older runs with --base or "
            "--history"
        )
    return Inputs(checks[0] if checks else None, benches, trainings)


def read_any(path: Path) -> CheckRun | BenchRun | TrainedWeights:
    """Read a file of any kind that a report can show.

    Raises:
        UsageError: the file is of a wrong kind, or damaged.
        HarnessError: the file cannot be read.
    """
    try:
        kind = kinds.describe(path)
    except FileFault as fault:
        raise UsageError(f"cannot read {fault}") from None
    if kind == kinds.RECORDS.name:
        return CheckRun(displayed(path), read_records(path))
    if kind == kinds.RESULTS.name:
        # These modules are slow to import, and a report of records does not need them.
        from harness.timing import json_file

        return BenchRun(displayed(path), json_file.read(path))
    if kind in (kinds.WEIGHTS.name, kinds.CHECKPOINT.name):
        return _read_training(
            path, kinds.WEIGHTS if kind == kinds.WEIGHTS.name else kinds.CHECKPOINT
        )
    raise UsageError(f"{displayed(path)}: this is {kind}; a report needs {ACCEPTED_FILES}")


def _read_training(path: Path, kind: kinds.FileKind) -> TrainedWeights:
    from harness.convert import weights

    found = weights.load(path, kind)
    if not found.history:
        raise UsageError(f"{displayed(path)} was imported, so it has no loss curve; omit it")
    try:
        history = formed(dict(found.history), TrainedHistory, "history")
    except Malformed as error:
        raise UsageError(f"{displayed(path)}: {error}") from None
    return TrainedWeights(displayed(path), found.spec, history)
