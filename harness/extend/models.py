"""Classes for running and tracing a user's own model, as ``harness check --against`` and
``harness port`` do."""

from __future__ import annotations

from harness.oracle.elementwise import elementwise_values
from harness.runtime.own_model.contract import (
    ModelArray,
    ModelFile,
    Naming,
    OwnModel,
    OwnModels,
    Placing,
    check_arguments,
    made,
    names_taken,
    parameters_of,
    reshaped,
    run_user_code,
    sizes_taken,
)
from harness.runtime.own_model.exported import ExportedModel
from harness.runtime.own_model.graph import (
    EXCLUDED,
    MASK_THRESHOLD,
    GraphBuilder,
    Operand,
    Rules,
    TracedGraph,
    short_pads,
    whole_numbers,
)
from harness.runtime.own_model.noise import GivenNoise, NoiseMisfit
from harness.runtime.own_model.places import current_place, place_of
from harness.runtime.own_model.recorder import Recorder

__all__ = [
    "EXCLUDED",
    "MASK_THRESHOLD",
    "ExportedModel",
    "GivenNoise",
    "GraphBuilder",
    "ModelArray",
    "ModelFile",
    "Naming",
    "NoiseMisfit",
    "Operand",
    "OwnModel",
    "OwnModels",
    "Placing",
    "Recorder",
    "Rules",
    "TracedGraph",
    "check_arguments",
    "current_place",
    "elementwise_values",
    "made",
    "names_taken",
    "parameters_of",
    "place_of",
    "reshaped",
    "run_user_code",
    "short_pads",
    "sizes_taken",
    "whole_numbers",
]
