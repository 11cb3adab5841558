"""The contract for models of users, which ``harness check --against`` compares with a spec."""

from __future__ import annotations

from harness.runtime.own_model.contract import (
    ModelArray,
    Naming,
    OwnModel,
    OwnModels,
    Placing,
    reshaped,
)
from harness.runtime.own_model.source import ModelFile, made, names_taken, sizes_taken

__all__ = [
    "ModelArray",
    "ModelFile",
    "Naming",
    "OwnModel",
    "OwnModels",
    "Placing",
    "made",
    "names_taken",
    "reshaped",
    "sizes_taken",
]
