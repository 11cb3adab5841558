"""Services of workers on numpy that train correctly at first; each goes wrong at a later step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.program.plan import Plan
from harness.runtime import plugins
from harness.runtime.native import Tensors
from harness.training.service import handler

NumpyBackend: Any = type(plugins.load("numpy"))
Run = Callable[[Tensors], Tensors]


class RateOfFirst(NumpyBackend):  # type: ignore[misc]
    """A backend that uses the learning rate of the first plan for all plans with equal inputs."""

    def __init__(self) -> None:
        self.first: dict[Any, Plan] = {}

    def execute(self, plan: Plan) -> Run:
        key = tuple((name, plan.shape(value)) for name, value in plan.inputs.items())
        found: Run = super().execute(self.first.setdefault(key, plan))
        return found


class SmallerStays(NumpyBackend):  # type: ignore[misc]
    """A backend that does not update parameters for a batch that is smaller than the first."""

    largest = 0

    def execute(self, plan: Plan) -> Run:
        run: Run = super().execute(plan)
        batch = plan.sizes["batch"]
        self.largest = max(self.largest, batch)
        if batch == self.largest:
            return run

        def stays(inputs: Tensors) -> Tensors:
            before = {made: np.array(inputs[given]) for made, given in plan.carried.items()}
            return {**run(inputs), **{n: a for n, a in before.items() if n.endswith((".W", ".b"))}}

        return stays


class TestsWrong(NumpyBackend):  # type: ignore[misc]
    """A backend whose compiled functions return results that are 1% too large."""

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        run = super().compile(function)

        def larger(*arguments: Any) -> Any:
            found = run(*arguments)
            return found if self.quick else {n: t * t.dtype.type(1.01) for n, t in found.items()}

        return larger


def rate_of_first(_: Any) -> Any:
    """Return the service of :class:`RateOfFirst`."""
    return handler(RateOfFirst())


def smaller_stays(_: Any) -> Any:
    """Return the service of :class:`SmallerStays`."""
    return handler(SmallerStays())


def tests_wrong(_: Any) -> Any:
    """Return the service of :class:`TestsWrong`."""
    return handler(TestsWrong())
