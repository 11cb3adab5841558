"""The content of a file of results of a benchmark: in the file, and in memory.

``docs/benchmarks.md`` has the meaning. Fields that are not here stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, NonNegativeInt

from harness.files.forms import Form, Number, plain
from harness.results.environment import Environment, MachineOf
from harness.runs.plans import RunPlan

# Of no time at all there is no speed.
Seconds = Annotated[float, Field(ge=1e-12, le=1e9, allow_inf_nan=False)]


class Stats(Form):
    """``median`` and ``data`` are seconds of a step; ``data`` has one number a round."""

    median: Seconds
    data: Annotated[list[Seconds], Field(min_length=1, max_length=100_000)]


class Spread(Form):
    """A figure over the rounds: its median and the quartiles."""

    median: Number
    q1: Number
    q3: Number

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The median, the lower and the upper quartile."""
        return self.median, self.q1, self.q3


class Rate(Spread):
    """What is read in a second, in ``unit``."""

    unit: str


class Values(Form):
    """What the proof of values has found; ``ratio`` is the largest error over its yardstick."""

    ratio: Number | None = None
    digits: Number | None = None


class Figures(Form):
    """The fields that pytest-benchmark has no place for; operations of a step, bytes a second."""

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
    """What identifies a cell; what is not here are its sizes, and what all cells of a run share,
    such as the dtype."""

    spec: str
    backend: str
    mode: str
    batch: int
    time: int

    @property
    def further(self) -> dict[str, str]:
        """What is not here, as texts."""
        return {name: str(value) for name, value in (self.model_extra or {}).items()}


class SpeedOrigin(Form):
    """In files that were merged, where a cell comes from: its machine, the versions that ran, and
    its run by a checksum of that one's file. ``backend`` and ``group`` are its own there."""

    backend: str
    machine: MachineOf
    versions: str
    run: str
    group: str | None = None


class SpeedEntry(Form):
    """A cell, with a speed or without one."""

    name: str
    params: Parameters
    origin: SpeedOrigin | None = None

    @property
    def cell(self) -> str:
        """The name of the cell."""
        return self.name

    @property
    def outcome(self) -> object:
        """The seconds of its rounds, or why there are none."""
        raise NotImplementedError

    def renamed(self, backend: str) -> Self:
        """The cell under another name of its backend."""
        told: dict[str, object] = {"params": self.params.model_copy(update={"backend": backend})}
        for field in ("name", "fullname"):
            if text := getattr(self, field, ""):
                told[field] = text.replace(f"[{self.params.backend}-", f"[{backend}-", 1)
        if param := getattr(self, "param", None):
            told["param"] = param.replace(self.params.backend, backend, 1)
        return self.model_copy(update=told)


class Timed(SpeedEntry):
    """A cell with a speed. Cells of one ``group`` differ in their backend only."""

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
        """The seconds of a step in each round."""
        return self.stats.data

    @property
    def ratio(self) -> float | None:
        """The largest error over its yardstick, if that was looked at."""
        return self.extra_info.values.ratio


class NoSpeed(SpeedEntry):
    """A cell without a speed, and why."""

    status: str
    reason: str

    @property
    def outcome(self) -> str:
        """Why there is no speed."""
        return self.reason


class Incomplete(Form):
    """How many cells a run had done when it was interrupted, and how many it was to have."""

    done: NonNegativeInt
    planned: NonNegativeInt

    def __str__(self) -> str:
        return f"interrupted after {self.done} of {self.planned} cells"


class Further(Form):
    """``harness``, at the top. ``commands`` are the arguments of those that made the file."""

    without_speed: list[NoSpeed]
    slopes: list[dict[str, object]] = Field(default_factory=list)
    tunings: list[dict[str, object]] = Field(default_factory=list)
    plans: list[RunPlan] = Field(default_factory=list)
    commands: list[list[str]] = Field(default_factory=list)
    incomplete: Incomplete | None = None


class Info(Form):
    """``machine_info``."""

    harness: Environment


class SpeedFile(Form):
    """The whole."""

    machine_info: Info
    benchmarks: list[Timed]
    datetime: str = ""
    harness: Further

    @property
    def environment(self) -> Environment:
        """Where the cells were timed."""
        return self.machine_info.harness

    @property
    def entries(self) -> Sequence[SpeedEntry]:
        """All cells, those with a speed first."""
        return [*self.benchmarks, *self.harness.without_speed]

    @property
    def timed(self) -> dict[str, Timed]:
        """The cells with a speed, by name."""
        return {entry.cell: entry for entry in self.benchmarks}

    @property
    def lacking(self) -> dict[str, NoSpeed]:
        """The cells without a speed, by name."""
        return {entry.cell: entry for entry in self.harness.without_speed}

    def only(self, wanted: Callable[[SpeedEntry], bool]) -> Self:
        """The same with some of the cells."""
        lacking = [entry for entry in self.harness.without_speed if wanted(entry)]
        return self.model_copy(
            update={
                "benchmarks": [entry for entry in self.benchmarks if wanted(entry)],
                "harness": self.harness.model_copy(update={"without_speed": lacking}),
            }
        )

    def plain(self) -> dict[str, object]:
        """Return the content as JSON has it."""
        found: dict[str, object] = plain(self.model_dump(by_alias=True, exclude_unset=True))
        return found


def group_name(parts: Iterable[object], sizes: Mapping[str, object]) -> tuple[str, ...]:
    """The name of a group: of its mode, spec, batch and time, and of its sizes."""
    told = (f"{name}={size}" for name, size in sorted(sizes.items()))
    return (*map(str, parts), *told)


def written(content: SpeedFile) -> bytes:
    """The bytes of a file."""
    return json.dumps(content.plain(), indent=4).encode()
