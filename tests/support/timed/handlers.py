"""Worker handlers for timing tests: numpy's honest handler, slow handlers, and failing handlers.

A handler (see :mod:`harness.worker.serve`) maps a name to a function of verb and payload.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.runtime import plugins
from harness.runtime.native import Advance, Tensors
from harness.runtime.service import handler

Answer = Callable[[str, dict[str, Any]], Any]
Run = Callable[[Tensors], Tensors]
NumpyBackend: Any = type(plugins.load("numpy"))
LARGEST_PEAK = 128
TIMED = ("latency", "throughput")


def offering(make: Callable[[str], Answer]) -> Callable[[str], Any]:
    """Return a handler whose worker reports versions, devices and dtypes of the numpy backend."""

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
    """Return the handler of the numpy backend; it measures peaks with small matmuls to save
    time."""
    return quick(handler(plugins.load("numpy")))


def quick(answer: Answer) -> Answer:
    """Wrap a handler to measure peaks with small matmuls."""

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb == "peaks":
            sizes = [[min(n, LARGEST_PEAK) for n in size] for size in payload["sizes"]]
            payload = {**payload, "sizes": sizes}
        return answer(verb, payload)

    return run


def ending(on: str) -> Callable[[str], Any]:
    """Return a handler whose process ends when many steps are timed on the path ``on``, or on
    any."""

    @offering
    def made(name: str) -> Answer:
        answer, paths = honest(name), [""]

        def run(verb: str, payload: dict[str, Any]) -> Any:
            if verb == "prepare":
                paths[0] = payload["path"]
            if verb == "throughput" and on in ("", paths[0]):
                os._exit(3)
            return answer(verb, payload)

        return run

    return made


dying, dying_on_native = ending(""), ending("native")


@offering
def hanging(name: str) -> Answer:
    """Return a handler that never returns from many steps."""
    answer = honest(name)

    def run(verb: str, payload: dict[str, Any]) -> Any:
        if verb == "throughput":
            time.sleep(3600)
        return answer(verb, payload)

    return run


@offering
def failing(name: str) -> Answer:
    """Return a handler that raises an error when it prepares."""

    def run(verb: str, payload: dict[str, Any]) -> Any:
        raise ValueError("no such layer")

    return run


class Together(NumpyBackend):  # type: ignore[misc]
    """A backend that can run several steps per call, and pauses in each single or joint step."""

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
    """A backend whose joint steps are slower than single steps."""

    pauses = (0.0, 0.005)


class SlowAlone(Together):
    """A backend whose single steps are slower than joint steps."""

    pauses = (0.005, 0.0)


class DearWaiting(Together):
    """A backend in which a wait takes as long as a call, so joint steps are faster."""

    pauses = (0.0001, 0.0)
    cost = 0.0006

    def wait(self, tensors: Tensors) -> None:
        until = time.perf_counter() + self.cost
        while time.perf_counter() < until:
            pass


def serving(make: Callable[[], Any]) -> Callable[[str], Any]:
    """Return the handler of a backend that cheats or is slow."""
    return offering(lambda name: quick(handler(make())))


slow_together = serving(SlowTogether)
slow_alone = serving(SlowAlone)
dear_waiting = serving(DearWaiting)
