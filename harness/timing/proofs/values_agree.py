"""Proof that results are right: those of the timed steps are the oracle's, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.oracle.tolerance import Deviation, digits, worst
from harness.timing.contestant import Contestant, Refused
from harness.timing.workload import TimedCase

# What a baseline's losses and outputs may be off: it may be another optimizer's.
BASELINE = 1e-3

Values = Sequence[Mapping[str, Any]]


def check_values(contestant: Contestant) -> None:
    """The results of the first steps are those of the oracle; :class:`Refused` if not."""
    results, after = compared_steps(contestant)
    case = contestant.case
    found = case.found(results, after)
    if contestant.entry.baseline:
        _check_baseline(contestant, found)
        return
    deviations = case.compare(found)
    told = [d for d in deviations if not d.void]
    if not told:
        raise Refused(
            f"nobody can tell whether it is right: in {case.dtype} every result of its steps is "
            "lost in rounding, or not finite"
        )
    furthest = worst(deviations)
    contestant.record.values = {
        "compared": len(told),
        "worst": furthest.name,
        "error": furthest.error,
        "ratio": furthest.ratio,
        "digits": told_digits(case, deviations),
        "agrees": all(d.agrees for d in deviations),
    }
    wrong = [d for d in deviations if not d.agrees]
    if wrong:
        more = f", and {len(wrong) - 1} more of {len(deviations)} tensors" if wrong[1:] else ""
        raise Refused(f"differs: {furthest}{more}")


def told_digits(case: TimedCase, deviations: Sequence[Deviation]) -> float | None:
    """Decimal digits of the worst tensor, of those that are more than rounding in the case's dtype;
    None where all are nothing else."""
    tells = case.expected.tells
    errors = [d.error for d in deviations if not d.void and tells(d.name, case.dtype)]
    return digits(max(errors)) if errors else None


def compared_steps(contestant: Contestant) -> tuple[Values, Mapping[str, Any]]:
    """The results of the steps that the oracle has made too, from the start, and what is left."""
    contestant.steps.restart()
    results: list[Mapping[str, Any]] = []
    for index in contestant.case.compared:
        results += contestant.steps.values(index, 1)
    train = contestant.case.group.mode == "train" and not contestant.entry.baseline
    return results, contestant.steps.parameters() if train else {}


def _check_baseline(contestant: Contestant, found: Mapping[str, Any]) -> None:
    expected = contestant.case.expected.values
    errors = {n: _gap(a, expected[n]) for n, a in found.items() if n in expected}
    if not errors:
        raise Refused("differs: nothing was compared")
    furthest = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    error = errors[furthest]
    agrees = error <= BASELINE
    contestant.record.values = {"compared": len(errors), "worst": furthest, "error": error}
    if not agrees:
        raise Refused(f"differs: {furthest} is off by {error:.2e} (allowed: {BASELINE:.0e})")


def check_again(contestant: Contestant) -> None:
    """After the timed rounds the results are still right.

    Raises:
        Refused: they are not.
    """
    first = contestant.record.values
    contestant.steps.feed(contestant.case.batches)
    check_values(contestant)
    contestant.record.values = {**first, "ratio_after": contestant.record.values.get("ratio")}


def _gap(found: Any, expected: Any) -> float:
    """The largest deviation relative to the largest magnitude; inf where shapes differ."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.max(np.abs(expected))) or 1.0
    gap = float(np.max(np.abs(found - expected))) / scale
    return gap if np.isfinite(gap) else float("inf")
