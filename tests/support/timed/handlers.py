"""What worker processes answer with: numpy's own verbs, and verbs that cheat in one way each.

Each is a handler of :mod:`harness.worker.serve`: a name to a function of verb and payload.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from harness.program.plan import Plan
from harness.runtime import plugins
from harness.runtime.backend import Advance
from harness.runtime.native import Tensors
from harness.runtime.service import handler

Answer = Callable[[str, dict[str, Any]], Any]
Run = Callable[[Tensors], Tensors]
NumpyBackend: Any = type(plugins.load("numpy"))
LARGEST_PEAK = 128
TIMED = ("latency", "throughput")


def offering(make: Callable[[str], Answer]) -> Callable[[str], Any]:
    """A handler whose worker greets with what the numpy backend offers."""

    def made(name: str) -> Any:
        def answer(verb: str, payload: dict[str, Any]) -> Any:
            return run(verb, payload)

        run, backend = make(name), plugins.load("numpy")
        for offer in ("versions", "devices", "dtypes"):
            setattr(answer, offer, getattr(backend, offer))
        return answer

    return made


@offering
def honest(name: str) -> Answer:
    """The numpy backend; its peaks are measured at small sizes, to be quick."""
    return quick(handler(plugins.load("numpy")))


def quick(answer: Answer) -> Answer:
    """The same verbs, with peaks of small products."""

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb == "peaks":
            sizes = [[min(n, LARGEST_PEAK) for n in size] for size in payload["sizes"]]
            payload = {**payload, "sizes": sizes}
        return answer(verb, payload)

    return run


@offering
def early(name: str) -> Answer:
    """Queues timed steps on a thread and says at once that they are done; all else waits."""
    answer, pool = honest(name), ThreadPoolExecutor(1)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb not in TIMED:
            return pool.submit(answer, verb, payload).result()
        started = time.perf_counter()
        pool.submit(answer, verb, payload)
        seconds = time.perf_counter() - started
        return [seconds] * payload["count"] if verb == "latency" else seconds * payload["count"]

    return run


@offering
def lazy(name: str) -> Answer:
    """Of many steps makes only the last."""
    answer = honest(name)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb == "throughput":
            payload = {"first": payload["first"] + payload["count"] - 1, "count": 1}
        return answer(verb, payload)

    return run


@offering
def one_batch(name: str) -> Answer:
    """Takes as long as it must, but where many steps are timed it makes all on one batch."""
    answer = honest(name)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb != "throughput":
            return answer(verb, payload)
        step = {"first": payload["first"], "count": 1}
        return sum(answer(verb, step) for _ in range(payload["count"]))

    return run


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
def dying(name: str) -> Answer:
    """Ends the process where many steps are timed."""
    answer = honest(name)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb == "throughput":
            os._exit(3)
        return answer(verb, payload)

    return run


@offering
def hanging(name: str) -> Answer:
    """Never returns from many steps."""
    answer = honest(name)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb == "throughput":
            time.sleep(3600)
        return answer(verb, payload)

    return run


@offering
def failing(name: str) -> Answer:
    """Raises where it is asked to prepare."""

    def run(verb: str, payload: dict[str, Any]) -> Any:
        raise ValueError("no such layer")

    return run


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


class Stale(NumpyBackend):  # type: ignore[misc]
    """Computes on a thread, and reads what is there without waiting for it."""

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


class Together(NumpyBackend):  # type: ignore[misc]
    """Makes several steps in one call; either way has a pause, in seconds a step."""

    pauses = (0.0, 0.0)

    def advance(self, step: Advance) -> Advance:
        alone, _ = self.pauses

        def paused(carried: Tensors, fixed: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
            time.sleep(alone)
            return step(carried, fixed, batch)

        return paused

    def several(self, step: Advance) -> Advance:
        _, together = self.pauses

        def run(carried: Tensors, fixed: Tensors, batches: Tensors) -> tuple[Tensors, Tensors]:
            found = []
            for index in range(len(next(iter(batches.values())))):
                time.sleep(together)
                batch = {n: t[index] for n, t in batches.items()}
                carried, results = step(carried, fixed, batch)
                found.append({n: np.array(t) for n, t in results.items()})
            return carried, {n: np.stack([one[n] for one in found]) for n in found[0]}

        return run


class SlowTogether(Together):
    """Several steps in a call are the slower way."""

    pauses = (0.0, 0.005)


class SlowAlone(Together):
    """One step in a call is the slower way."""

    pauses = (0.005, 0.0)


class Promise:
    """One result of work under way."""

    def __init__(self, future: Future[Tensors], name: str, shape: tuple[int, ...]) -> None:
        self.future, self.name, self.shape = future, name, shape


def ready(tensor: Any) -> Any:
    return tensor.future.result()[tensor.name] if isinstance(tensor, Promise) else tensor


class Caching(NumpyBackend):  # type: ignore[misc]
    """Looks results up by the batch."""

    def execute(self, plan: Plan) -> Run:
        run, known = super().execute(plan), {}

        def looked_up(inputs: Tensors) -> Tensors:
            batch = {n: a for n, a in inputs.items() if n.startswith(("input.", "target."))}
            key = hash(tuple(np.ascontiguousarray(a).tobytes() for a in batch.values()))
            if key not in known:
                known[key] = {n: np.array(a) for n, a in run(inputs).items()}
            return known[key]

        return looked_up


def serving(make: Callable[[], Any]) -> Callable[[str], Any]:
    """The handler of a backend that cheats, or is slow in one way."""
    return offering(lambda name: quick(handler(make())))


wrong = serving(Wrong)
stale = serving(Stale)
caching = serving(Caching)
slow_together = serving(SlowTogether)
slow_alone = serving(SlowAlone)
