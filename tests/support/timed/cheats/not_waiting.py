"""Backends on numpy that report steps as done, or return results, before the work is done."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from harness.program.plan import Plan
from harness.runtime.native import Tensors
from timed.handlers import TIMED, Answer, NumpyBackend, Run, honest, offering, serving


@offering
def early(name: str) -> Answer:
    """Queue timed steps in a thread, and report them as done at once; all other calls wait."""
    answer, pool = honest(name), ThreadPoolExecutor(1)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb not in TIMED:
            return pool.submit(answer, verb, payload).result()
        started = time.perf_counter()
        pool.submit(answer, verb, payload)
        seconds = time.perf_counter() - started
        return [seconds] * payload["count"] if verb == "latency" else seconds * payload["count"]

    return run


class Promise:
    """A result of work that is still running."""

    def __init__(self, future: Future[Tensors], name: str, shape: tuple[int, ...]) -> None:
        self.future, self.name, self.shape = future, name, shape


def ready(tensor: Any) -> Any:
    return tensor.future.result()[tensor.name] if isinstance(tensor, Promise) else tensor


class Stale(NumpyBackend):  # type: ignore[misc]
    """A backend that computes in a thread, and reads results without waiting for them."""

    def execute(self, plan: Plan) -> Run:
        run, pool = super().execute(plan), ThreadPoolExecutor(1)

        def work(inputs: Tensors) -> Tensors:
            return {
                n: np.array(a) for n, a in run({n: ready(t) for n, t in inputs.items()}).items()
            }

        def later(inputs: Tensors) -> Tensors:
            future = pool.submit(work, dict(inputs))
            return {n: Promise(future, n, plan.shape(v)) for n, v in plan.outputs.items()}

        return later

    def numpy(self, tensor: Any) -> Any:
        if isinstance(tensor, Promise) and not tensor.future.done():
            return np.zeros(tensor.shape, np.float32)
        return super().numpy(ready(tensor))


@offering
def halfway(name: str) -> Answer:
    """Report that all steps are done after half of them; a thread computes the rest."""
    answer, pool = honest(name), ThreadPoolExecutor(1)
    left: list[Future[Any]] = []

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb != "throughput" or payload["count"] < 4:
            return pool.submit(answer, verb, payload).result()
        half = payload["count"] // 2
        seconds = pool.submit(answer, verb, {**payload, "count": half}).result()
        rest = {"first": payload["first"] + half, "count": payload["count"] - half}
        left.append(pool.submit(answer, verb, rest))
        return seconds

    return run


stale = serving(Stale)
