"""The forms of what a report reads beyond what other readers of the same files want."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from harness.files.forms import Form, Number
from harness.timing.result_file import Incomplete


class Spread(Form):
    """A figure over the rounds: its median and the quartiles."""

    median: Number
    q1: Number
    q3: Number


class Rate(Spread):
    """What is read in a second, in ``unit``."""

    unit: str


class ValuesProof(Form):
    """What the proof of values has found."""

    digits: Number | None = None


class Figures(Form):
    """``extra_info`` of a cell with a speed; operations of a step, bytes a second."""

    rate: Rate
    step: Spread
    path: str = ""
    many: int | None = None
    values: ValuesProof = ValuesProof()
    flops_per_second: Number | None = None
    share_of_peak: Number | None = None
    peak: Mapping[str, Any] = Field(default_factory=dict)
    bandwidth: Mapping[str, Any] = Field(default_factory=dict)
    share_of_bandwidth: Number | None = None
    doubts: list[str] = Field(default_factory=list)


class CellParameters(Form):
    """What identifies a cell of a run; what is not here are its sizes, and what all cells of a run
    share, such as the dtype."""

    spec: str
    backend: str
    mode: str
    batch: int
    time: int

    @property
    def further(self) -> dict[str, str]:
        """What is not here, as texts."""
        return {name: str(value) for name, value in (self.model_extra or {}).items()}


class Speed(Form):
    """A cell with a speed."""

    fullname: str
    params: CellParameters
    extra_info: Figures


class NoSpeed(Form):
    """A cell without one, and why."""

    name: str
    params: CellParameters
    status: str
    reason: str


class BenchFurther(Form):
    """``harness``, at the top of a file of results."""

    without_speed: list[NoSpeed]
    incomplete: Incomplete | None = None
    commands: list[list[str]] = Field(default_factory=list)


class BenchFile(Form):
    """A file of results."""

    datetime: str = ""
    machine_info: dict[str, Any]
    benchmarks: list[Speed]
    harness: BenchFurther


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
