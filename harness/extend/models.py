"""Classes for running a user's model, which ``harness check --against`` compares with a spec."""

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
    reshaped,
    sizes_taken,
)

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
