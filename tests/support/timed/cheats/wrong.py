"""Backends on numpy with wrong results or a wrong clock."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from harness.program.plan import Plan
from harness.runtime.native import Tensors
from timed.handlers import TIMED, Answer, NumpyBackend, Run, honest, offering, serving


class Wrong(NumpyBackend):  # type: ignore[misc]
    """A backend whose results are off by 0.1%."""

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
    """Return right results for many steps, and then results that are off by 1%."""
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
    """Report half of the time if more than a few steps are timed in a row."""
    answer = honest(name)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        value = answer(verb, payload)
        return value / 2 if verb == "throughput" and payload["count"] > 16 else value

    return run


class Known(NumpyBackend):  # type: ignore[misc]
    """A backend that is right only on the first batches that it receives.

    For all other batches it returns wrong results and unchanged parameters, whether they are read
    or not."""

    first = 2

    def execute(self, plan: Plan) -> Run:
        run, known = super().execute(plan), set[int]()

        def knowing(inputs: Tensors) -> Tensors:
            batch = hash(b"".join(a.tobytes() for n, a in inputs.items() if n.startswith("input.")))
            if len(known) < self.first:
                known.add(batch)
            if batch in known:
                return run(inputs)
            before = {given: np.array(inputs[given]) for given in plan.carried.values()}
            results = {n: np.array(a) for n, a in run(inputs).items()}
            results |= {made: before[given] for made, given in plan.carried.items()}
            return {n: a if n in plan.carried else 0 * a + 0.5 for n, a in results.items()}

        return knowing


class Tired(NumpyBackend):  # type: ignore[misc]
    """A backend that stops training after some steps from the start, even if results are read."""

    steps = 12

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def tiring(inputs: Tensors) -> Tensors:
            # The step number also passes from step to step.
            done = float(inputs["step"]) > self.steps
            before = {given: np.array(inputs[given]) for given in plan.carried.values()}
            results = {n: np.array(a) for n, a in run(inputs).items()}
            kept = {m: before[g] for m, g in plan.carried.items() if g != "step"}
            return results | kept if done else results

        return tiring


class SlowClock(NumpyBackend):  # type: ignore[misc]
    """A backend whose module makes the clock of its process run at half speed."""

    rate = 0.5

    def __init__(self) -> None:
        true, begin = time.perf_counter, time.perf_counter()
        time.perf_counter = lambda: begin + (true() - begin) * self.rate


class ClockSlowBy15(SlowClock):
    """A backend whose clock loses 15%."""

    rate = 0.85


class ClockSlowBy5(SlowClock):
    """A backend whose clock loses 5%."""

    rate = 0.95


class SlowInRounds(NumpyBackend):  # type: ignore[misc]
    """A backend whose clock runs at a third of the speed in rows of steps.

    The cheat begins at a restart and ends when results are read twice, as after single steps."""

    def __init__(self) -> None:
        self.true = time.perf_counter
        self.at = self.shown = self.true()
        self.rate, self.since, self.waits, self.fresh = 1.0, 0, 0, False
        time.perf_counter = self.now

    def now(self) -> float:
        """Return the time of the manipulated clock."""
        at = self.true()
        self.shown += (at - self.at) * self.rate
        self.at = at
        return self.shown

    def set(self, rate: float) -> None:
        """Set the speed of the clock from now on."""
        self.now()
        self.rate = rate

    def tensor(self, array: Any) -> Any:
        if np.asarray(array).dtype.kind == "f" and np.ndim(array) == 2:  # a parameter, at a start
            self.fresh = True
        return super().tensor(array)

    def wait(self, tensors: Tensors) -> None:
        self.since = 0
        self.waits += 1
        self.fresh = self.fresh and self.waits < 2

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def counting(inputs: Tensors) -> Tensors:
            self.since += 1
            self.waits = 0
            self.set(1 / 3 if self.since > 2 and self.fresh else 1.0)
            return run(inputs)

        return counting


class Boasting(NumpyBackend):  # type: ignore[misc]
    """A backend that multiplies large matrices only by the first column, to reach a high peak."""

    def compile(self, function: Any) -> Any:
        compiled = super().compile(function)

        def run(variables: Tensors, constants: Tensors) -> Any:
            left, right = variables.get("a"), variables.get("b")
            if left is None or left.ndim < 2:
                return compiled(variables, constants)
            shape = (len(left), right.shape[1])
            return {"result": np.broadcast_to(left[:, :1] * right[0, 0], shape)}

        return run


known = serving(Known)
tired = serving(Tired)
wrong = serving(Wrong)
slow_clock = serving(SlowClock)
clock_slow_by_15 = serving(ClockSlowBy15)
clock_slow_by_5 = serving(ClockSlowBy5)
slow_in_rounds = serving(SlowInRounds)
boasting = serving(Boasting)
