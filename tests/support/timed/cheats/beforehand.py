"""Backends on numpy that compute the results of a batch as soon as they receive it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from harness.program.plan import Plan
from harness.runtime.native import Tensors
from timed.handlers import NumpyBackend, Run, serving


class Beforehand(NumpyBackend):  # type: ignore[misc]
    """A backend that computes a forward pass when its batch arrives.

    The batch is the only input of the model; it is a new array, or written over an old array. In
    the step the backend waits for half of the usual time, so as not to be conspicuous."""

    def __init__(self) -> None:
        self.half = 0.0
        self.work: Callable[[Any], Tensors] | None = None
        self.shape: tuple[int, ...] = ()
        self.known: dict[bytes, Any] = {}

    def execute(self, plan: Plan) -> Run:
        run = super().execute(plan)

        def step(inputs: Tensors) -> Tensors:
            (name,) = (n for n in inputs if n.startswith("input."))
            given = inputs[name]

            def work(batch: Any) -> Tensors:
                started = time.thread_time()
                made = {n: np.array(a) for n, a in run({**inputs, name: batch}).items()}
                self.half = (time.thread_time() - started) / 2
                return made

            self.work, self.shape = work, given.shape
            key = given.tobytes()
            if key not in self.known:
                return run(inputs)
            until = time.thread_time() + self.half
            while time.thread_time() < until:
                pass
            return self.looked_up(key)

        return step

    def looked_up(self, key: bytes) -> Tensors:
        found: Tensors = self.known[key]
        return found

    def tensor(self, array: Any) -> Any:
        made = super().tensor(array)
        self.come(made)
        return made

    def fill(self, tensor: Any, array: Any) -> None:
        super().fill(tensor, array)
        self.come(tensor)

    def come(self, batch: Any) -> None:
        """Compute the step for an array, if the array is a batch."""
        if self.work is not None and batch.dtype.kind == "i" and batch.shape == self.shape:
            key = batch.tobytes()
            if key not in self.known:
                self.known[key] = self.begun(self.work, np.array(batch))

    def begun(self, work: Callable[[Any], Tensors], batch: Any) -> Any:
        return work(batch)


class BeforehandAside(Beforehand):
    """The same cheat, in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(1)

    def begun(self, work: Callable[[Any], Tensors], batch: Any) -> Future[Tensors]:
        return self.pool.submit(work, batch)

    def looked_up(self, key: bytes) -> Tensors:
        found: Tensors = self.known[key].result()
        return found


beforehand = serving(Beforehand)
beforehand_aside = serving(BeforehandAside)
