"""Checks that compare a backend with the oracle, or with itself, on one test case: a model at fixed
sizes with all its arrays. A check is a function that gets a :class:`Context` and yields findings
(results of comparisons). The checks run in the order of :data:`TABLE`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

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

CheckFunction = Callable[[Context], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """A check: its name, its function, the names of its findings, and the cells in which it runs.

    - ``findings``: the names of the findings, in the order of the comparisons. If empty, the check
      has one finding with the name of the check. All findings of a check come from the same calls
      to the backend.
    - ``users_arrays``: the check also runs on a user's own arrays. All other checks need special
      inputs or parameters: edge values, different shapes, initial values.
    - ``float64_only``: the check runs only in float64, because sums over many steps amplify
      rounding errors.
    - ``narrow_dtypes``: the check also runs in bfloat16 and float16.
    - ``once_in``: a dtype. If a command includes float32 and float64, the check runs only in this
      dtype, because it finds the same faults in both, and each check needs compilations.
    - ``slow``: the check runs only if the user names it, or with ``--thorough``. It is slow, and
      rarely finds a fault that no other check finds.
    """

    name: str
    function: CheckFunction
    findings: tuple[str, ...] = ()
    users_arrays: bool = False
    float64_only: bool = False
    narrow_dtypes: bool = True
    once_in: str = ""
    slow: bool = False


# All checks, in the order in which they run.
TABLE: tuple[Check, ...] = (
    Check("primitives", values.primitives, users_arrays=True),
    Check(
        "values",
        values.values,
        findings=("outputs", "loss", "state", "statistics", "gradients"),
        users_arrays=True,
    ),
    Check(
        "cotangents",
        values.cotangents,
        findings=("cotangent-gradients",),
        users_arrays=True,
        once_in="float32",
    ),
    Check("inference", values.inference, users_arrays=True),
    Check("held-out", values.held_out, users_arrays=True, once_in="float32"),
    Check("carried-state", values.carried_state, users_arrays=True),
    Check("training", training.own_optimizer, users_arrays=True, float64_only=True),
    Check("training-sgd", training.sgd, users_arrays=True, once_in="float32"),
    Check("pipeline-forward", training.pipeline_forward, users_arrays=True, once_in="float32"),
    Check(
        "pipeline",
        training.pipeline,
        findings=("pipeline-training",),
        users_arrays=True,
        once_in="float64",
    ),
    Check("trained", training.trained, once_in="float32"),
    Check("shapes", properties.shapes, once_in="float64"),
    Check("partial-batch", properties.partial_batch, once_in="float64"),
    Check("single-example", properties.single_example, once_in="float32"),
    Check(
        "batch-independence", properties.batch_independence, users_arrays=True, once_in="float64"
    ),
    Check("causality", properties.causality, users_arrays=True, once_in="float64"),
    Check("repeatability", properties.repeatability, users_arrays=True),
    Check("aliasing", properties.aliasing, users_arrays=True),
    Check("extremes", extremes.extremes),
    Check("saturation", extremes.saturation),
    # In narrow dtypes, a framework's own layer rounds inputs off the exact kink.
    Check("kinks", extremes.kinks, findings=("kinks", "corners"), narrow_dtypes=False),
    Check(
        "embedding-rows",
        extremes.embedding_rows,
        findings=("index-zero", "repeated-index", "last-index"),
    ),
    Check("bad-index", extremes.bad_index),
    Check("nan", nan.nan, once_in="float64"),
    Check("nan-inputs", nan.nan_inputs),
    Check("initial-values", values.initial_values),
    Check("tails", extremes.tails),
    Check("far-inputs", extremes.far_inputs),
    Check("offset", extremes.offset),
    Check("minus-infinity", extremes.minus_infinity),
    Check("strides", thresholds.strides),
    Check("long-state", trajectories.long_state),
    Check("soak", properties.soak),
    # The following checks open new sessions.
    Check("functions", functions.functions),
    Check("optimizer-steps", trajectories.optimizer_steps),
    Check("large-sizes", thresholds.large_sizes, once_in="float32"),
    Check("large-counts", thresholds.large_counts, once_in="float32"),
    Check("own-sizes", thresholds.own_sizes, slow=True),
)

# Check name -> function.
CHECKS: Mapping[str, CheckFunction] = {check.name: check.function for check in TABLE}
# Names of the checks that also run on a user's own arrays.
AT_GIVEN = tuple(check.name for check in TABLE if check.users_arrays)
FLOAT64_ONLY = frozenset(check.name for check in TABLE if check.float64_only)
NOT_NARROW = frozenset(check.name for check in TABLE if not check.narrow_dtypes)
# Check name -> the only dtype in which the check runs if a command includes float32 and float64.
IN_ONE: Mapping[str, str] = {check.name: check.once_in for check in TABLE if check.once_in}
# Names of the slow checks.
THOROUGH = frozenset(check.name for check in TABLE if check.slow)
# Finding name -> name of its check.
FINDINGS: Mapping[str, str] = {
    finding: check.name for check in TABLE for finding in check.findings or (check.name,)
}

__all__ = [
    "AT_GIVEN",
    "CHECKS",
    "FINDINGS",
    "FLOAT64_ONLY",
    "IN_ONE",
    "NOT_NARROW",
    "TABLE",
    "THOROUGH",
    "Check",
    "Context",
]
