"""The form of a training's history, as a report reads it."""

from __future__ import annotations

from pydantic import Field

from harness.files.forms import Form, Number


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
