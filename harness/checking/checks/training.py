"""Several optimizer steps, with a new batch each and a learning rate that changes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from harness.checking.checks.again import hold_again
from harness.checking.checks.context import Context
from harness.oracle.case import Case, state_of, step_values
from harness.oracle.tolerance import PRECISION
from harness.oracle.yardstick import Expected
from harness.program.updates import UpdateRule
from harness.results.findings import Finding
from harness.runtime.tensors import Misfit

STEPS = 4
# Of gradient descent. No power of two: one that is kept in too few bits is then another.
RATE = 0.06
# A trajectory is held to be stable while rounding changes its typical tensor by less than this.
STABLE = 2.0**-12
RATES_TRIED = 5


def own_optimizer(context: Context) -> Iterator[Finding]:
    """The spec's own optimizer and learning rate, divided by 8 half way.

    In float64 only: Adam divides a gradient by its own size, rounding included.
    """
    update = context.case.spec.update
    if update is None or context.dtype != "float64":
        return
    yield _train(context, "training", update, update.attributes["learning_rate"])


def sgd(context: Context) -> Iterator[Finding]:
    """Gradient descent: parameters move by the gradient, nothing hides behind a quotient."""
    yield _train(context, "training-sgd", context.case.spec.rule("sgd"), RATE)


def stable(
    rate: float, dtype: str, expected: Callable[[float], Expected]
) -> tuple[float, Expected]:
    """The rate, or a 16th or so of it, with which steps lead somewhere; and what they lead to.

    Where they diverge, rounding is all that is left after a few steps. The rate is one that float32
    holds: frameworks that keep it so have the same one.
    """
    best: tuple[float, float, Expected] | None = None
    for smaller in range(RATES_TRIED):
        tried = float(np.float32(rate / 16**smaller))
        found = expected(tried)
        noise = found.noise(dtype)
        # Of what is compared: a trajectory that has left its way in the last steps alone is told by
        # nothing else. Beside a large parameter a small step is mostly rounding, too.
        compared = [noise[name] for name in found.values]
        typical = median(compared) if all(map(np.isfinite, compared)) else np.inf
        if best is None or typical < best[0]:
            best = typical, tried, found
        elif best[0] < np.inf:
            break
        if typical < STABLE * PRECISION[dtype]:
            break
    assert best is not None
    return best[1:]


def batches_of(case: Case, count: int, time: int | None = None) -> list[dict[str, Any]]:
    """``inputs`` and ``targets`` of so many batches; the case's own first, if ``time`` is its."""
    time = time or case.time
    others = (case.batch_of(case.batch, time, n) for n in range(1, count))
    first = case.material if time == case.time else case.batch_of(case.batch, time, count)
    return [{"inputs": m.inputs, "targets": m.targets} for m in (first, *others)]


def planned(
    case: Case, rule: UpdateRule, rate: float, dtype: str
) -> tuple[list[dict[str, Any]], Expected]:
    """The batches of the steps, each with its learning rate, and what the oracle makes of them."""
    drawn = batches_of(case, STEPS)

    def batches_at(rate: float) -> list[dict[str, Any]]:
        rates = [rate if number < STEPS // 2 else rate / 8 for number in range(STEPS)]
        return [{**batch, "learning_rate": own} for batch, own in zip(drawn, rates, strict=True)]

    rate, expected = stable(
        rate, dtype, lambda rate: case.train(rule, batches_at(rate), case.material, rate)
    )
    return batches_at(rate), expected


def _train(context: Context, check: str, rule: UpdateRule, rate: float) -> Finding:
    material = context.case.material
    batches, expected = planned(context.case, rule, rate, context.dtype)
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
        if number == STEPS // 2:
            # A pass between steps, as of a text that is held out, leaves nothing behind.
            context.forward(material)
    _hold_inference(context, finding, step)
    _hold_fresh(context, finding, batches[:1], before, expected.only("step 1: "))
    return finding


def _hold_inference(context: Context, finding: Finding, step: Mapping[str, Any]) -> None:
    """Inference uses what the last step has made: the same as where that is loaded."""
    case, remote = context.case, context.remote
    held = step["parameters"], step["statistics"]
    if any(isinstance(tensor, Misfit) for tensors in held for tensor in tensors.values()):
        return  # which is told of the step itself, and nothing that could be loaded
    first = context.forward(case.material)
    made = replace(case.material, parameters=held[0], statistics=held[1])
    remote.load(made)
    fault = "{} after training is another than from the same parameters where they are loaded"
    expected = partial(case.forward, "inference", case.material, "main")
    hold_again(context, finding, first, context.forward(case.material), expected, fault)


def _hold_fresh(
    context: Context,
    finding: Finding,
    batches: list[dict[str, Any]],
    before: Mapping[str, Any],
    expected: Expected,
) -> None:
    """Loading ends all that earlier steps have left: slots, their count, the learning rate."""
    material = context.case.material
    context.remote.load(material)
    (again,) = context.remote.train(batches, material.state)
    after = step_values(1, again, material)
    fault = "{} is another after loading anew: something was kept from earlier steps"
    hold_again(context, finding, before, after, lambda: expected, fault)
