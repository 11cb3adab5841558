"""Backends on numpy whose results are wrong, or whose clock is."""

from __future__ import annotations

import time
from typing import Any

from harness.program.plan import Plan
from harness.runtime.native import Tensors
from timed.handlers import TIMED, Answer, NumpyBackend, Run, honest, offering, serving


class Wrong(NumpyBackend):  # type: ignore[misc]
    """Results are off by one part in a thousand."""

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def off(inputs: Tensors) -> Tensors:
            results = run(inputs)
            return {
                n: a if n in plan.carried else (a * 1.001).astype(a.dtype)
                for n, a in results.items()
            }

        return off


@offering
def drifting(name: str) -> Answer:
    """Is right until it has made many steps, and then wrong by one part in a hundred."""
    answer, made = honest(name), [0]

    def run(verb: str, payload: dict[str, Any]) -> Any:
        value = answer(verb, payload)
        if verb in TIMED:
            made[0] += payload["count"]
        if verb == "values" and made[0] > 50:
            return [{n: (a * 1.01).astype(a.dtype) for n, a in step.items()} for step in value]
        return value

    return run


@offering
def halved_when_long(name: str) -> Answer:
    """Tells of half the time where more than a few steps are timed in a row."""
    answer = honest(name)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        value = answer(verb, payload)
        return value / 2 if verb == "throughput" and payload["count"] > 16 else value

    return run


class SlowClock(NumpyBackend):  # type: ignore[misc]
    """Its module has made the clock of its process go at half speed."""

    def __init__(self) -> None:
        true, begin = time.perf_counter, time.perf_counter()
        time.perf_counter = lambda: begin + (true() - begin) / 2


wrong = serving(Wrong)
slow_clock = serving(SlowClock)
