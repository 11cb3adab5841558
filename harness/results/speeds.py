"""The content of a file of speeds as Python objects; ``docs/benchmarks.md`` explains the file.

Fields that this version does not know are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, NonNegativeInt

from harness.files.forms import Form, Number, plain
from harness.results.environment import Environment, MachineOf
from harness.runs.plans import RunPlan

# The minimum prevents infinite speeds.
Seconds = Annotated[float, Field(ge=1e-12, le=1e9, allow_inf_nan=False)]


class Stats(Form):
    """The seconds per step of a cell: ``data`` has one number for each round, and ``median`` is
    their median."""

    median: Seconds
    data: Annotated[list[Seconds], Field(min_length=1, max_length=100_000)]


class Spread(Form):
    """The median and the quartiles of a measurement over all rounds."""

    median: Number
    q1: Number
    q3: Number

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The median, the lower quartile and the upper quartile."""
        return self.median, self.q1, self.q3


class Rate(Spread):
    """A speed with its ``unit``: characters or samples per second."""

    unit: str


class Values(Form):
    """The agreement of a timed cell with the oracle: ``ratio`` is the largest error divided by its
    yardstick, and ``digits`` the number of correct decimal digits."""

    ratio: Number | None = None
    digits: Number | None = None


class Figures(Form):
    """The measurements of a cell that has a speed, from the field ``extra_info`` of
    pytest-benchmark's format. The names are as in :class:`.contestant.Record`. Rates are per
    second."""

    model: str | None = None
    path: str = ""
    many: int | None = None
    step: Spread
    rate: Rate
    flops_per_second: Number | None = None
    peak: dict[str, object] = Field(default_factory=dict)
    share_of_peak: Number | None = None
    bandwidth: dict[str, object] = Field(default_factory=dict)
    share_of_bandwidth: Number | None = None
    values: Values = Values()
    doubts: list[str] = Field(default_factory=list)


class Parameters(Form):
    """The values that identify a timed cell. Sizes, dtype, device and path are not declared as
    fields; they are in :attr:`further`."""

    spec: str
    backend: str
    mode: str
    batch: int
    time: int

    @property
    def further(self) -> dict[str, str]:
        """A dictionary with the values that are not declared as fields (sizes, dtype, device,
        path), as text."""
        return {name: str(value) for name, value in (self.model_extra or {}).items()}


class SpeedOrigin(Form):
    """The origin of a cell in a merged file: the backend's name, group, machine, versions and run
    before the merge."""

    backend: str
    machine: MachineOf
    versions: str
    run: str
    group: str | None = None


class SpeedEntry(Form):
    """A cell of a benchmark (spec, backend, mode and sizes), with or without a speed."""

    name: str
    params: Parameters
    origin: SpeedOrigin | None = None

    @property
    def cell(self) -> str:
        """The name of the cell."""
        return self.name

    @property
    def outcome(self) -> object:
        """The seconds per step in each round, or the reason why there is no speed. Two entries with
        the same outcome are duplicates."""
        raise NotImplementedError

    def rename_backend(self, backend: str) -> Self:
        """Return a copy of the cell with the name ``backend`` for its backend."""
        updates: dict[str, object] = {"params": self.params.model_copy(update={"backend": backend})}
        for field in ("name", "fullname"):
            if text := getattr(self, field, ""):
                updates[field] = text.replace(f"[{self.params.backend}-", f"[{backend}-", 1)
        if param := getattr(self, "param", None):
            updates["param"] = param.replace(self.params.backend, backend, 1)
        return self.model_copy(update=updates)


class Timed(SpeedEntry):
    """A cell with a speed. Cells with the same ``group`` (model, sizes and mode) differ only in
    their backend."""

    group: str
    fullname: str
    param: str | None = None
    extra_info: Figures
    stats: Stats

    @property
    def cell(self) -> str:
        """The name of the cell."""
        return self.fullname

    @property
    def outcome(self) -> list[Seconds]:
        """The seconds per step in each round."""
        return self.stats.data

    @property
    def ratio(self) -> float | None:
        """The largest error divided by its yardstick; None if no values were compared."""
        return self.extra_info.values.ratio


class NoSpeed(SpeedEntry):
    """A cell without a speed. ``status`` is e.g. "refused", and ``reason`` says why."""

    status: str
    reason: str

    @property
    def outcome(self) -> str:
        """The reason why there is no speed."""
        return self.reason


class Incomplete(Form):
    """The number of finished cells and the number of planned cells of an interrupted run."""

    done: NonNegativeInt
    planned: NonNegativeInt

    def __str__(self) -> str:
        return f"interrupted after {self.done} of {self.planned} cells"


class Further(Form):
    """The field ``harness`` of a file of speeds. It holds everything for which pytest-benchmark's
    format has no field.

    ``without_speed`` has the cells without a speed, ``plans`` lists the cells of each run, and
    ``commands`` are the commands that wrote the file. ``incomplete`` is set if the run was
    interrupted.
    """

    without_speed: list[NoSpeed]
    slopes: list[dict[str, object]] = Field(default_factory=list)
    tunings: list[dict[str, object]] = Field(default_factory=list)
    plans: list[RunPlan] = Field(default_factory=list)
    commands: list[list[str]] = Field(default_factory=list)
    incomplete: Incomplete | None = None


class Info(Form):
    """The field ``machine_info`` of a file of speeds, which contains the environment of the
    benchmark."""

    harness: Environment


class SpeedFile(Form):
    """The content of a file of speeds."""

    machine_info: Info
    benchmarks: list[Timed]
    datetime: str = ""
    harness: Further

    @property
    def environment(self) -> Environment:
        """The environment in which the cells were timed."""
        return self.machine_info.harness

    @property
    def entries(self) -> Sequence[SpeedEntry]:
        """The cells of the file; cells with a speed come first."""
        return [*self.benchmarks, *self.harness.without_speed]

    @property
    def timed(self) -> dict[str, Timed]:
        """A dictionary from name to cell, for the cells with a speed."""
        return {entry.cell: entry for entry in self.benchmarks}

    @property
    def lacking(self) -> dict[str, NoSpeed]:
        """A dictionary from name to cell, for the cells without a speed."""
        return {entry.cell: entry for entry in self.harness.without_speed}

    def select(self, is_selected: Callable[[SpeedEntry], bool]) -> Self:
        """Return a copy that contains only the cells for which ``is_selected`` is true."""
        without_speed = [entry for entry in self.harness.without_speed if is_selected(entry)]
        return self.model_copy(
            update={
                "benchmarks": [entry for entry in self.benchmarks if is_selected(entry)],
                "harness": self.harness.model_copy(update={"without_speed": without_speed}),
            }
        )

    def plain(self) -> dict[str, object]:
        """Return the content of the file as JSON data."""
        data: dict[str, object] = plain(self.model_dump(by_alias=True, exclude_unset=True))
        return data


def group_name(parts: Iterable[object], sizes: Mapping[str, object]) -> tuple[str, ...]:
    """Return the values that identify a group, as texts: its ``parts`` (mode, spec, batch size,
    sequence length), then its other sizes."""
    size_texts = (f"{name}={size}" for name, size in sorted(sizes.items()))
    return (*map(str, parts), *size_texts)


def encode_speeds(content: SpeedFile) -> bytes:
    """Return the content as the bytes of a file."""
    return json.dumps(content.plain(), indent=4).encode()
