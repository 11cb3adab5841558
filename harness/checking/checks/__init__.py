"""Checks that compare a backend with the oracle, or with itself, on one test case: a model at fixed
sizes with all its arrays. A check is a function that gets a :class:`Context` and yields findings
(results of comparisons). The functions in :data:`CHECKS` run in the order of this table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from harness.checking.checks import (
    extremes,
    functions,
    nan,
    properties,
    thresholds,
    training,
    trajectories,
    values,
)
from harness.checking.checks.context import Context
from harness.results.findings import Finding

Check = Callable[[Context], Iterable[Finding]]

# Group name -> check function. One check function can report several findings, which come from the
# same calls to the backend.
CHECKS: Mapping[str, Check] = {
    "primitives": values.primitives,
    "values": values.values,
    "cotangents": values.cotangents,
    "inference": values.inference,
    "held-out": values.held_out,
    "carried-state": values.carried_state,
    "training": training.own_optimizer,
    "training-sgd": training.sgd,
    "pipeline-forward": training.pipeline_forward,
    "pipeline": training.pipeline,
    "trained": training.trained,
    "shapes": properties.shapes,
    "partial-batch": properties.partial_batch,
    "single-example": properties.single_example,
    "batch-independence": properties.batch_independence,
    "causality": properties.causality,
    "repeatability": properties.repeatability,
    "aliasing": properties.aliasing,
    "extremes": extremes.extremes,
    "saturation": extremes.saturation,
    "kinks": extremes.kinks,
    "embedding-rows": extremes.embedding_rows,
    "bad-index": extremes.bad_index,
    "nan": nan.nan,
    "nan-inputs": nan.nan_inputs,
    "initial-values": values.initial_values,
    "tails": extremes.tails,
    "far-inputs": extremes.far_inputs,
    "offset": extremes.offset,
    "minus-infinity": extremes.minus_infinity,
    "strides": thresholds.strides,
    "long-state": trajectories.long_state,
    "soak": properties.soak,
    # The following checks open new sessions.
    "functions": functions.functions,
    "optimizer-steps": trajectories.optimizer_steps,
    "large-sizes": thresholds.large_sizes,
    "large-counts": thresholds.large_counts,
    "own-sizes": thresholds.own_sizes,
}

# Checks that also run on a user's own arrays. All other checks need special inputs or parameters:
# edge values, different shapes, initial values.
AT_GIVEN = (
    *("primitives", "values", "cotangents", "inference", "held-out", "carried-state", "training"),
    *("training-sgd", "pipeline-forward", "pipeline", "batch-independence", "causality"),
    *("repeatability", "aliasing"),
)

# Checks that run in float64 only, because sums over many steps amplify rounding errors.
FLOAT64_ONLY = frozenset({"training"})

# Checks that do not run in bfloat16 and float16: a framework's own layer rounds inputs off the
# exact kink.
NOT_NARROW = frozenset({"kinks"})

# Checks that find the same faults in float32 and float64 -> a dtype. If a command includes both
# dtypes, the check runs only in this dtype, because each check needs compilations.
IN_ONE: Mapping[str, str] = {
    **dict.fromkeys(("shapes", "partial-batch", "pipeline", "nan"), "float64"),
    **dict.fromkeys(("batch-independence", "causality"), "float64"),
    **dict.fromkeys(("trained", "training-sgd", "large-sizes", "cotangents"), "float32"),
    **dict.fromkeys(("large-counts", "pipeline-forward", "held-out", "single-example"), "float32"),
}

# Slow checks that rarely find faults that no other check finds. They run only if the user names
# them, or with --thorough.
THOROUGH = frozenset({"own-sizes"})

# Group name -> names of its findings, in the order of the comparisons. A group that is missing here
# has one finding with the group's name.
SEVERAL: Mapping[str, tuple[str, ...]] = {
    "values": ("outputs", "loss", "state", "statistics", "gradients"),
    "cotangents": ("cotangent-gradients",),
    "pipeline": ("pipeline-training",),
    "kinks": ("kinks", "corners"),
    "embedding-rows": ("index-zero", "repeated-index", "last-index"),
}
# Finding name -> name of its group.
FINDINGS: Mapping[str, str] = {
    finding: group for group in CHECKS for finding in SEVERAL.get(group, (group,))
}

__all__ = [
    "AT_GIVEN",
    "CHECKS",
    "FINDINGS",
    "FLOAT64_ONLY",
    "IN_ONE",
    "NOT_NARROW",
    "THOROUGH",
    "Check",
    "Context",
]
