"""The files that a report is made of, each told by its content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from harness.checking.pairs import recorded, statements
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

# Commands that are shown: the last of as many as wrote to the files.
MOST_COMMANDS = 8
WANTED = "records of 'harness check', results of 'harness bench', or weights of 'harness train'"


class EpochFigures(Form):
    """An epoch of a training: its mean loss, the losses within it, and that on what is held out."""

    epoch: int
    loss: Number
    curve: list[Number]
    held_out_loss: Number | None = None
    held_out_metrics: dict[str, Number] = Field(default_factory=dict)
    characters_per_second: Number | None = None


class TrainedHistory(Form):
    """How weights came about."""

    backend: str = ""
    dtype: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    epochs: list[EpochFigures]


@dataclass(frozen=True)
class CheckRun:
    """A record file."""

    name: str
    records: Records

    @property
    def heads(self) -> Sequence[Head]:
        """Those of the runs that wrote to the file."""
        return self.records.of_kind(Head)

    @property
    def cells(self) -> Mapping[Cell, CellResult]:
        """The cells that ended."""
        return self.records.ended

    @property
    def started(self) -> str:
        """When the last run that wrote to the file began, UTC."""
        return self.heads[-1].started if self.heads else ""

    @property
    def seconds(self) -> float | None:
        """How long the runs took that wrote to the file; None if one did not come to its end, or if
        the file was joined of others."""
        taken = [line.seconds for line in self.records.of_kind(Done)]
        return sum(taken) if taken and len(taken) == len(self.heads) else None

    @property
    def models(self) -> dict[str, CheckedModel]:
        """By name, the models that were checked, as far as the file tells."""
        found: dict[str, CheckedModel] = {}
        for head in self.heads:
            found |= head.models
        specs = {cell.spec for cell in self.cells}
        return {name: model for name, model in found.items() if name in specs}

    @property
    def comparisons(self) -> int | None:
        """How many tensors and properties were compared; None if the file does not tell."""
        if any(line.compared is None for line in self.records.of_kind(Result)):
            return None
        return sum(f.comparisons for result in self.cells.values() for f in result.findings)

    def pairs(self, *, every: bool) -> list[str]:
        """In words, to how many digits backends agree with each other: of ``every`` pair, or of
        many only the one that is furthest apart."""
        found = recorded(self.records)
        return statements(found, self.cells.values(), every=every, others="all are below")

    @property
    def versions(self) -> dict[str, str]:
        """By backend, the version of its framework."""
        return {cell.backend: r.version for cell, r in self.cells.items() if r.version}


@dataclass(frozen=True)
class BenchRun:
    """A file of results."""

    name: str
    file: SpeedFile

    @property
    def started(self) -> str:
        """When the file was made, UTC."""
        return self.file.datetime[:19] + "Z"

    @property
    def cut_short(self) -> bool:
        """Whether the run was interrupted."""
        return self.file.harness.incomplete is not None

    @property
    def versions(self) -> dict[str, str]:
        """By backend, the versions of its framework."""
        return {backend: said.told for backend, said in self.file.environment.workers.items()}


@dataclass(frozen=True)
class TrainedWeights:
    """Weights that were trained, and how it went."""

    name: str
    spec: str
    history: TrainedHistory


@dataclass(frozen=True)
class Inputs:
    """All that a report shows; of records there is one file at most."""

    check: CheckRun | None = None
    benches: Sequence[BenchRun] = ()
    trainings: Sequence[TrainedWeights] = ()

    @property
    def commands(self) -> list[str]:
        """The last commands that wrote to the files; a run from Python has none."""
        ran = [[*head.arguments] for head in (self.check.heads if self.check else ())]
        ran += [command for run in self.benches for command in run.file.harness.commands]
        every = dict.fromkeys(command_line(["harness", *words]) for words in ran if words)
        return [*every][-MOST_COMMANDS:]

    def told_apart(self, run: BenchRun) -> str:
        """What tells the speeds of a file from those of others: its name, and nothing where it is
        the only one."""
        return run.name if len(self.benches) > 1 else ""


def gather(paths: Sequence[Path], what: str = "a report") -> Inputs:
    """Read every file; ``what`` is made of them is said where there are too many.

    Raises:
        UsageError: a file is of no such kind, damaged, or there are two of records.
        HarnessError: one cannot be read.
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
            f"{what} is of one run, and {named} are records of {len(checks)}; join those of shards "
            "and machines with 'harness merge', and give older ones with --base or --history"
        )
    return Inputs(checks[0] if checks else None, benches, trainings)


def read_any(path: Path) -> CheckRun | BenchRun | TrainedWeights:
    """Read a file of whichever kind a report can show.

    Raises:
        UsageError: it is of another kind, or damaged.
        HarnessError: it cannot be read.
    """
    try:
        kind = kinds.described(path)
    except FileFault as fault:
        raise UsageError(f"cannot read {fault}") from None
    if kind == kinds.RECORDS.name:
        return CheckRun(displayed(path), read_records(path))
    if kind == kinds.RESULTS.name:
        # This and what reads weights import much that a report of records need not wait for.
        from harness.timing import json_file

        return BenchRun(displayed(path), json_file.read(path))
    if kind in (kinds.WEIGHTS.name, kinds.CHECKPOINT.name):
        return _training(path, kinds.WEIGHTS if kind == kinds.WEIGHTS.name else kinds.CHECKPOINT)
    raise UsageError(f"{displayed(path)}: this is {kind}; a report is made of {WANTED}")


def _training(path: Path, kind: kinds.FileKind) -> TrainedWeights:
    from harness.convert import weights

    found = weights.load(path, kind)
    if not found.history:
        raise UsageError(f"{displayed(path)} was imported, and has no curve; leave it out")
    try:
        history = formed(dict(found.history), TrainedHistory, "history")
    except Malformed as error:
        raise UsageError(f"{displayed(path)}: {error}") from None
    return TrainedWeights(displayed(path), found.spec, history)
