"""The clock of a worker: times steps, whoever runs them, and never stops before they are done."""

from __future__ import annotations

import time
from typing import Any, Protocol, runtime_checkable

from harness.arrays import ArrayDict

Results = ArrayDict


class Steps(Protocol):
    """Training steps or forward passes over batches that are on the device and rotate."""

    def start(self, index: int) -> Any:
        """Begin step ``index``, on batch ``index`` modulo their number, and do not wait for it.

        Returns what :meth:`finish` takes.
        """

    def finish(self, handle: Any) -> Results:
        """Wait for a step: its ``loss`` in training, its outputs by name in a forward pass."""


@runtime_checkable
class Runs(Protocol):
    """Steps that are faster in a row."""

    def run(self, first: int, count: int) -> Any:
        """Begin ``count`` steps; the handle of the last."""


class Clock:
    """The verbs that time. What is timed ends with numbers on the host: no device can be ahead."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def latency(self, first: int, count: int) -> list[float]:
        """Seconds of each of ``count`` steps, every one waited for."""
        seconds = []
        for index in range(first, first + count):
            start = time.perf_counter()
            self.steps.finish(self.steps.start(index))
            seconds.append(time.perf_counter() - start)
        return seconds

    def stages(self, first: int, count: int, many: int = 1) -> list[tuple[float, float, float]]:
        """Of each of ``count`` steps, or calls of ``many``, the seconds until it has begun, those
        until its results are there, and those that reading them once more takes."""
        seconds = []
        for index in range(first, first + count * many, many):
            start = time.perf_counter()
            handle = self.steps.start(index) if many == 1 else self._run(index, many)
            begun = time.perf_counter()
            self.steps.finish(handle)
            done = time.perf_counter()
            self.steps.finish(handle)
            seconds.append((begun - start, done - begun, time.perf_counter() - done))
        return seconds

    def throughput(self, first: int, count: int) -> float:
        """Seconds of ``count`` steps in a row with one wait at their end."""
        start = time.perf_counter()
        self.steps.finish(self._run(first, count))
        return time.perf_counter() - start

    def values(self, first: int, count: int) -> list[Results]:
        """The results of each step, for comparing."""
        return [self.steps.finish(self.steps.start(i)) for i in range(first, first + count)]

    def _run(self, first: int, count: int) -> Any:
        if isinstance(self.steps, Runs):
            return self.steps.run(first, count)
        handle = None
        for index in range(first, first + count):
            handle = self.steps.start(index)
        return handle
