"""The form of a file of results, as far as ``compare`` reads it: docs/benchmarks.md."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from harness.files.forms import Form, Number
from harness.runs.merged import PlanForm

# Of no time at all there is no speed.
Seconds = Annotated[float, Field(ge=1e-12, le=1e9, allow_inf_nan=False)]


class Stats(Form):
    """``median`` and ``data`` are seconds of a step; ``data`` has one number a round."""

    median: Seconds
    data: Annotated[list[Seconds], Field(min_length=1, max_length=100_000)]


class ValuesForm(Form):
    """``ratio`` is the largest error over its yardstick."""

    ratio: Number | None = None


class Extra(Form):
    """The fields that pytest-benchmark has no place for."""

    values: ValuesForm = ValuesForm()
    model: str | None = None


class Parameters(Form):
    """What identifies a cell, beside the fields of its model's sizes."""

    backend: str
    spec: str


class MachineOf(Form):
    """A machine of several, in files that were merged."""

    id: str
    host: str


class OriginForm(Form):
    """In files that were merged, where a cell comes from: its machine, the versions that ran, and
    its run by a checksum of that one's file. ``backend`` and ``group`` are its own there."""

    backend: str
    machine: MachineOf
    versions: str
    run: str
    group: str | None = None


class BenchmarkForm(Form):
    """A cell with a speed. Cells of one ``group`` differ in their backend only."""

    name: str
    fullname: str
    group: str
    params: Parameters
    stats: Stats
    extra_info: Extra
    origin: OriginForm | None = None


class Lacking(Form):
    """A cell without a speed, and why."""

    name: str
    fullname: str = ""
    group: str = ""
    reason: str
    params: Parameters
    origin: OriginForm | None = None


class Incomplete(Form):
    """How many cells a run had done when it was interrupted, and how many it was to have."""

    done: NonNegativeInt
    planned: NonNegativeInt

    def __str__(self) -> str:
        return f"interrupted after {self.done} of {self.planned} cells"


class Further(Form):
    """``harness``, at the top. ``commands`` are the arguments of those that made the file."""

    without_speed: list[Lacking]
    incomplete: Incomplete | None = None
    commands: list[list[str]] = Field(default_factory=list)
    plans: list[PlanForm] = Field(default_factory=list)
    slopes: list[dict[str, Any]] = Field(default_factory=list)
    tunings: list[dict[str, Any]] = Field(default_factory=list)


class Machine(Form):
    """Of records, too."""

    cpu: str
    usable_cores: int


class WorkerSaid(Form):
    """The greeting of a worker."""

    versions: dict[str, str]
    environment: dict[str, str]


class Environment(Form):
    """``machine_info.harness``."""

    machine: Machine
    machines: list[MachineOf] = Field(default_factory=list)
    device: str
    dtype: str
    path: str
    threads: int
    gpus: list[dict[str, Any]]
    workers: dict[str, WorkerSaid]


class Info(Form):
    """``machine_info``."""

    harness: Environment


class ResultFile(Form):
    """The whole."""

    machine_info: Info
    benchmarks: list[BenchmarkForm]
    harness: Further
