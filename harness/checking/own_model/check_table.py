"""The table of the checks of a user's own model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.checking.checks import NOT_NARROW
from harness.checking.own_model import checks, training
from harness.checking.own_model.checks import ModelCheck
from harness.runtime.precision import narrow

# Checks of single passes: name -> function.
PASS_CHECKS: Mapping[str, ModelCheck] = {
    "repeatability": checks.repeatability,
    "inference": checks.inference,
    "cotangents": checks.cotangents,
    "values": checks.values,
    "saturation": checks.saturation,
    "kinks": checks.corners,  # yields the finding "corners"
    "shapes": checks.shapes,
}
# Checks of optimizer steps. They run only if a pattern of ``--check`` has their name, because other
# users of ``--against`` need no loss.
STEP_CHECKS: Mapping[str, ModelCheck] = {"training-sgd": training.sgd, "training": training.adam}
CHECKS: Mapping[str, ModelCheck] = {**PASS_CHECKS, **STEP_CHECKS}


def left_out(patterns: Sequence[str], dtype: str) -> set[str]:
    """Return the names of the checks that do not run in a cell."""
    asked = {name for name in STEP_CHECKS for pattern in patterns if pattern.startswith("training")}
    return STEP_CHECKS.keys() - asked | (set(NOT_NARROW) if narrow(dtype) else set())
