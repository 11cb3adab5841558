"""What goes wrong later: many optimizer steps on a point, and many batches through one state.

A wrong correction from the eleventh step on, or an update in five that is left out, shows in no
run of four steps, and two hundred of a network's are dear. So the optimizer trains
``probe/steps``, whose gradients are given: rounding does not feed on itself there, and float32
can be held to the spec's own optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.check.checks.context import Context
from harness.check.checks.probes import ProbeCase, once
from harness.check.findings import Finding
from harness.oracle.case import state_of, step_values
from harness.oracle.draw import draw, single
from harness.oracle.tolerance import Deviation, compare
from harness.oracle.yardstick import Expected
from harness.program.ir import Program, UpdateRule
from harness.runtime.arguments import Arguments
from harness.runtime.session import Session
from harness.runtime.tensors import whole

STEPS, BATCH = 200, 2
# Steps that are compared: the first ones, and those around where a correction might change.
COMPARED = (1, 2, 3, 5, 6, 10, 11, 12, 50, 100, 101, 127, 128, 129, 200)
# Neither is a power of two, and float32 holds both: Keras keeps the rate in it.
RATES = (float(np.float32(0.0013)), float(np.float32(0.00091)))
# Sizes of the entries of a gradient; one parameter has none.
SIZES = np.array([1, 1, 0.5, 0.1, 2, 0.01, 4, 0])
# Batches that a state is carried through, and those that are looked at.
CARRIED, SEEN = 40, (6, 7, 13, 40)


def optimizer_steps(context: Context) -> Iterator[Finding]:
    """Two hundred steps of the spec's own optimizer, one by one and as a pipeline makes them."""
    rule = context.case.spec.update
    if rule is None:
        return
    key = ("optimizer-steps", rule.name, tuple(sorted(rule.attributes.items())))
    finding = Finding("optimizer-steps")
    finding.deviations = list(once(context, key, lambda: _optimizer_steps(context, rule)))
    yield finding


def _optimizer_steps(context: Context, rule: UpdateRule) -> list[Deviation]:
    """The deviations of both ways. Opens sessions of its own."""
    case, remote = _point(), context.remote
    remote.open(case.training, case.inference, rule, context.path, context.dtype, context.device)
    remote.load(case.material)
    batches = [
        {"inputs": {"x": x}, "targets": {}, "learning_rate": RATES[number >= STEPS // 2]}
        for number, x in enumerate(_gradients(STEPS))
    ]
    expected = case.train(rule, batches, case.material, ("steps", *sorted(rule.attributes.items())))
    found: dict[str, Any] = {}
    for number, step in enumerate(remote.train(batches, {}), start=1):
        found |= step_values(number, step, case.material) if number in COMPARED else {}
    deviations = _compared(context, found, expected.only(*_steps(COMPARED)), "one by one")
    return deviations + _in_a_row(replace(context, case=case), rule, batches)


def _in_a_row(
    context: Context, rule: UpdateRule, batches: Sequence[Mapping[str, Any]]
) -> list[Deviation]:
    """The losses of the later half of the steps, and what all of them have made.

    The loss is linear in the parameters, so that each one tells where the steps before have led.
    """
    case, half, rate = context.case, STEPS // 2, RATES[0]
    batches = [{**batch, "learning_rate": rate} for batch in batches[:half]]
    key = ("steps in a row", *sorted(rule.attributes.items()))
    expected = case.train(rule, [*batches, *batches], case.material, key)
    results, after = context.timed("train", batches, rule, rate)
    found = {f"step {half + i}: loss": r["loss"] for i, r in enumerate(results, start=1)}
    found |= step_values(STEPS, {"results": results[-1], **after}, case.material)
    wanted = {n: a for n, a in expected.values.items() if n in found}
    wanted |= expected.only(*_steps((STEPS,))).values
    return _compared(context, found, Expected(wanted, expected.noise), "in a row")


def _steps(numbers: Sequence[int]) -> list[str]:
    return [f"step {number}: " for number in numbers]


def _compared(
    context: Context, found: Mapping[str, Any], expected: Expected, way: str
) -> list[Deviation]:
    deviations = compare(found, expected.values, expected.noise, context.dtype)
    return [replace(d, name=f"{way}, {d.name}") for d in deviations]


@cache
def _point() -> ProbeCase:
    def make(program: Program) -> Arguments:
        # From zero, so that a small step is not rounded to the place of a large parameter.
        given = draw(program, BATCH, 1, 0)
        return replace(given, parameters={n: 0 * a for n, a in given.parameters.items()})

    return ProbeCase("steps", BATCH, make)


def _gradients(count: int) -> Array:
    """``[count, batch, entries]``: the same sizes at all steps, other numbers and signs."""
    random = np.random.default_rng(7)
    return single(random.normal(size=(count, BATCH, len(SIZES))) * SIZES + 0.3 * SIZES)


def long_state(context: Context) -> Iterator[Finding]:
    """A state that is handed on through forty batches, each from what the one before has left."""
    case = context.case
    if not case.material.state:
        return
    batches = [case.batch_of(case.batch, case.time, n % 5 + 10).inputs for n in range(CARRIED)]

    def chained(session: Session) -> Mapping[str, Array]:
        session.load(case.material.parameters, case.material.statistics)
        return _carried(
            lambda inputs, state: session.forward("inference", inputs, state),
            batches,
            case.material.state,
        )

    context.remote.load(case.material)
    found = _carried(
        lambda inputs, state: whole(context.remote.forward("inference", inputs, state)),
        batches,
        case.material.state,
    )
    yield context.finding("long-state", found, case.expect("long-state", chained))


def _carried(forward: Any, batches: Sequence[Any], state: Mapping[str, Array]) -> dict[str, Array]:
    seen = {}
    for number, inputs in enumerate(batches, start=1):
        results = forward(inputs, state)
        state = state_of(results)
        if number in SEEN:
            seen |= {f"batch {number}: {n}": a for n, a in results.items()}
    return seen
