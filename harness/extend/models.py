"""Classes for running a user's own model. ``harness check --against`` compares this model with a
spec."""

from __future__ import annotations

from harness.runtime.own_model.contract import (
    ModelArray,
    ModelFile,
    Naming,
    OwnModel,
    OwnModels,
    Placing,
    made,
    names_taken,
    place_of,
    reshaped,
    sizes_taken,
)
from harness.runtime.own_model.recorder import Recorder

__all__ = [
    "ModelArray",
    "ModelFile",
    "Naming",
    "OwnModel",
    "OwnModels",
    "Placing",
    "Recorder",
    "made",
    "names_taken",
    "place_of",
    "reshaped",
    "sizes_taken",
]
