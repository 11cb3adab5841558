"""Several optimizer steps, with a new batch each and a learning rate that changes on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from harness.check.checks.context import Context, equal
from harness.check.findings import Finding
from harness.oracle.case import state_of, step_values
from harness.program.ir import UpdateRule

STEPS = 4


def own_optimizer(context: Context) -> Iterator[Finding]:
    """The spec's own optimizer and learning rate, divided by 8 half way.

    In float64 only: Adam divides a gradient by its own size, rounding included.
    """
    update = context.case.spec.update
    if update is None or context.dtype != "float64":
        return
    # The nearest power of two: a rate that frameworks keep in float32 is then the same for all.
    rate = 2.0 ** round_log2(update.attributes["learning_rate"])
    yield _train(context, "training", update, rate)


def sgd(context: Context) -> Iterator[Finding]:
    """Gradient descent: parameters move by the gradient, nothing hides behind a quotient."""
    yield _train(context, "training-sgd", context.case.spec.rule("sgd"), 2.0**-4)


def round_log2(value: float) -> int:
    """The exponent of the nearest power of two."""
    return round(math.log2(value))


def _train(context: Context, check: str, rule: UpdateRule, rate: float) -> Finding:
    case = context.case
    material = case.material
    batches: list[dict[str, Any]] = []
    for number in range(STEPS):
        batch = material if number == 0 else case.batch_of(case.batch, case.time, number)
        batches.append(
            {
                "inputs": batch.inputs,
                "targets": batch.targets,
                "learning_rate": rate if number < STEPS // 2 else rate / 8,
            }
        )
    expected = case.train(rule, batches, material, rate)
    context.remote.use_rule(rule)
    context.remote.load(material)
    finding = Finding(check)
    before: Mapping[str, Any] = {}
    state: Mapping[str, Any] = material.state
    for number, given in enumerate(batches, start=1):
        # One call for each: a step has parameters and slots, and several would be held at once.
        (step,) = context.remote.train([given], state)
        state, found = state_of(step["results"]), step_values(number, step, material)
        expected_now = expected.only(f"step {number}: ")
        finding.deviations += context.finding(check, found, expected_now).deviations
        before = before or found
    finding.faults += _not_fresh(context, batches[:1], before)
    return finding


def _not_fresh(
    context: Context, batches: list[dict[str, Any]], before: Mapping[str, Any]
) -> list[str]:
    """Loading ends all that earlier steps have left: slots, their count, the learning rate."""
    material = context.case.material
    context.remote.load(material)
    (again,) = context.remote.train(batches, material.state)
    after = step_values(1, again, material)
    return [
        f"{name} is another after loading anew: something was kept from earlier steps"
        for name, array in before.items()
        if not equal(array, after.get(name))
    ]
