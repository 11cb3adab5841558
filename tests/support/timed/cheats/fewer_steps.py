"""Backends on numpy that compute fewer steps than requested, or all steps on one batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.runtime.native import Advance, Tensors
from timed.handlers import Answer, NumpyBackend, honest, offering, serving


@offering
def lazy(name: str) -> Answer:
    """Compute only the last of many steps."""
    answer = honest(name)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb == "throughput":
            payload = {"first": payload["first"] + payload["count"] - 1, "count": 1}
        return answer(verb, payload)

    return run


@offering
def one_batch(name: str) -> Answer:
    """Take the right time, but compute all steps of a timed row on one batch."""
    answer = honest(name)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb != "throughput":
            return answer(verb, payload)
        step = {"first": payload["first"], "count": 1}
        return sum(answer(verb, step) for _ in range(payload["count"]))

    return run


class LastOfSeveral(NumpyBackend):  # type: ignore[misc]
    """A backend that computes only the last of several steps in a call, whose results are read."""

    def several(self, step: Advance) -> Advance:
        def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
            count = len(next(iter(batches.values())))
            last = {n: t[-1] for n, t in batches.items()}
            carried, results = step(carried, fixed, last)
            return carried, {n: np.stack([t] * count) for n, t in results.items()}

        return run


class FewerOfSeveral(NumpyBackend):  # type: ignore[misc]
    """A backend that computes every second training step of a call, and reports its loss twice."""

    def several(self, step: Advance) -> Advance:
        def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
            found = []
            for index in range(1, len(next(iter(batches.values()))), 2):
                carried, results = step(carried, fixed, {n: t[index] for n, t in batches.items()})
                found += [{n: np.array(t) for n, t in results.items()}] * 2
            return carried, {n: np.stack([one[n] for one in found]) for n in found[0]}

        return run


last_of_several = serving(LastOfSeveral)
fewer_of_several = serving(FewerOfSeveral)
