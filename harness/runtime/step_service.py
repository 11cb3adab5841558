"""Serve the verbs of a worker that measure speed: prepare a pipeline and run its clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from random import SystemRandom
from statistics import median
from typing import Annotated, Any

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError
from harness.runtime import memory, promises
from harness.runtime.answers import (
    Arrays,
    Carried,
    Count,
    Counted,
    Descended,
    Length,
    MemoryAnswer,
    Peaks,
    Prepared,
    Seconds,
)
from harness.runtime.backend import Backend
from harness.runtime.labels import CPU, card_of
from harness.runtime.native import Tensors
from harness.runtime.precision import WIDTHS, host_dtype, narrow
from harness.runtime.session import open_session
from harness.runtime.step_loop import Clock, Pipeline
from harness.runtime.training_steps import ListedBatches, TrainingSteps

# Size of each of the three arrays of the bandwidth test, far beyond any cache: numbers on a CPU,
# bytes on a card. The L2 cache of an H100 has 50 MB, and later cards have more.
LARGE_ARRAY, LARGE_ON_CARD = 1 << 24, 1 << 29
TRIES = 5
# Number of checked entries of a product, and their allowed error as a share of the square root of
# the number of terms.
LOOKED_AT, OFF = 16, 0.1
# If a product that is read takes more than READ times as long as an unread one, and more than LONG
# seconds, the backend has deferred it. Read-back is excluded; below LONG, calls would matter.
READ, LONG = 2.0, 1e-3

Binary = Callable[[Any, Any], Any]


def bandwidth_numbers(device: str, dtype: str) -> int:
    """Return the length of each array of the bandwidth test."""
    return LARGE_ARRAY if card_of(device) is None else LARGE_ON_CARD // WIDTHS[dtype]


class PeakMeter:
    """The peak speeds of one backend on one device, in a dtype. The meter verifies results: a
    product must be correct, and computed before the clock stops."""

    def __init__(self, backend: Backend, device: str, dtype: str) -> None:
        self.backend, self.device, self.dtype = backend, device, dtype

    def product(self, m: int, k: int, n: int) -> float:
        """Return the FLOP/s of a product ``[m, k] @ [k, n]``.

        Raises:
            ContractError: the result of ``matmul`` is not the product.
        """
        random = np.random.default_rng(0)
        arrays = [random.standard_normal(s, np.float32) for s in ((m, k), (k, n))]
        left, right = map(self._operand, arrays)
        multiply = self._compiled("matmul")
        alone = self._seconds(multiply, left, right)
        read = min(self._read(multiply, left, right, *arrays) for _ in range(TRIES))
        # A backend that multiplies only when the result is read has not multiplied before.
        put_off = read > max(READ * alone, LONG)
        return 2 * m * k * n / (read if put_off else alone)

    def bandwidth(self) -> float:
        """Return the bytes/s of an addition of arrays beyond all caches."""
        numbers = bandwidth_numbers(self.device, self.dtype)
        # The values do not matter, and drawing so many random numbers takes a second.
        large = [
            self.backend.tensor(np.full(numbers, value, host_dtype(self.dtype)))
            for value in (1.0, 2.0)
        ]
        return 3 * numbers * WIDTHS[self.dtype] / self._seconds(self._compiled("add"), *large)

    def _compiled(self, op: str) -> Binary:
        table = self.backend.primitives

        def function(variables: Tensors, constants: Tensors) -> Tensors:
            return {"result": table[op](variables["a"], variables["b"])}

        compiled = promises.function(self.backend.compile(function), "compile()")
        return lambda a, b: compiled({"a": a, "b": b}, {})["result"]

    def _operand(self, array: Array) -> Any:
        made = self.backend.tensor(array.astype(host_dtype(self.dtype)))
        narrowed = narrow(self.dtype)
        return self.backend.primitives["astype"](made, dtype=narrowed) if narrowed else made

    def _read(self, multiply: Binary, a: Any, b: Any, left: Array, right: Array) -> float:
        """Time one product, excluding read-back; verify randomly chosen entries."""
        cast, wide = self.backend.primitives["astype"], host_dtype(self.dtype)
        started = time.perf_counter()
        made = multiply(a, b)
        made = cast(made, dtype=wide) if narrow(self.dtype) else made
        found = promises.array(self.backend.numpy(made), "what matmul gave")
        taken = time.perf_counter() - started
        same = self.backend.tensor(np.array(found))
        self.backend.wait({"same": same})
        started = time.perf_counter()
        self.backend.numpy(same)
        taken -= time.perf_counter() - started
        if not _is_product(found, left, right):
            raise promises.ContractError(
                f"what matmul gave of {list(left.shape)} and {list(right.shape)} is not the product"
            )
        return taken

    def _seconds(self, run: Binary, a: Any, b: Any) -> float:
        """Return the best seconds per run of several tries; each try takes about 0.01 seconds."""

        def timed(count: int) -> float:
            started = time.perf_counter()
            for _ in range(count):
                result = run(a, b)
            self.backend.wait({"result": result})
            return (time.perf_counter() - started) / count

        timed(1)
        count = max(1, round(0.01 / max(median(timed(1) for _ in range(3)), 1e-7)))
        return min(timed(count) for _ in range(TRIES))


def _is_product(found: Array, left: Array, right: Array) -> bool:
    """Return whether randomly chosen entries are those of the product."""
    rows, columns = shape = len(left), right.shape[1]
    most, draw = OFF * left.shape[1] ** 0.5, SystemRandom()
    places = [(draw.randrange(rows), draw.randrange(columns)) for _ in range(LOOKED_AT)]
    return found.shape == shape and all(
        abs(found[i, j] - left[i].astype(np.float64) @ right[:, j].astype(np.float64)) <= most
        for i, j in places
    )


Payload = dict[str, Any]


class StepService:
    """The pipelines of one backend, by path."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._pipelines: dict[str, Pipeline] = {}
        self._path, self._device = "", CPU

    @property
    def pipeline(self) -> Pipeline:
        """The current pipeline.

        Raises:
            UsageError: none is prepared.
        """
        if self._path not in self._pipelines:
            raise UsageError("no pipeline is prepared")
        return self._pipelines[self._path]

    def prepare(
        self,
        training: Any,
        inference: Any,
        rule: Any,
        path: str,
        dtype: str,
        device: str,
        mode: Any,
        parameters: Payload,
        statistics: Payload,
        state: Payload,
        batches: Sequence[Payload],
        learning_rate: float,
        quick: bool = False,
        beside: bool = False,
    ) -> Prepared:
        """Make a pipeline in place of the last ones or, if ``beside``, next to other paths. Returns
        the path of each layer, seconds, steps a call, and the backend's settings."""
        self._pipelines = self._pipelines if beside else {}
        started = time.perf_counter()
        self.backend.quick, self.backend.exact = quick, False
        session = open_session(self.backend, training, inference, rule, path, dtype, device)
        self._device = device
        self._path, self._pipelines[path] = (
            path,
            Pipeline(session, mode, parameters, statistics, state, batches, learning_rate),
        )
        seconds = time.perf_counter() - started
        self._forget_peaks()
        return {
            "paths": session.paths(),
            "seconds": seconds,
            "many": self.pipeline.many,
            "settings": promises.texts(self.backend.settings(), "settings()"),
        }

    def descend(
        self,
        training: Any,
        inference: Any,
        rule: Any,
        dtype: str,
        device: str,
        parameters: Payload,
        statistics: Payload,
        state: Payload,
        batches: Sequence[Payload],
        learning_rate: float,
        many: int,
        starts: Sequence[int],
    ) -> Annotated[Descended, Counted("starts", "later")]:
        """Train as a training run does: derived gradient and the optimizer's equations.

        The steps are compiled for speed, ``many`` in a call if the backend supports it, with
        denormals flushed. Before the last ``many`` steps, the training is resumed as from a
        checkpoint.

        Each number in ``starts`` begins another training on the first ``many`` batches, with the
        given parameters and fresh slots. The number counts the steps that are taken as already
        made.

        Returns the sum of the losses of all steps, one for each batch, and the values after them.
        ``later`` holds the values after the steps from each of ``starts``.
        """
        self.backend.quick = False
        self.backend.flush_denormals(True)
        try:
            session = open_session(
                self.backend, training, inference, rule, "derived", dtype, device
            )
            session.use_rule(session.rule, claim=False)
            steps = TrainingSteps(session, ListedBatches(batches, session.dtype), many)
            session.load(parameters, statistics)
            steps.begin({f"state.{n}": session.float_tensor(a) for n, a in state.items()})
            rows = np.arange(len(batches))[:, None]
            total = steps.run(learning_rate, rows[:-many])
            steps.take_up(steps.left())
            total += steps.run(learning_rate, rows[-many:])
            steps.store()
            found: Descended = {"total": total, **session.read(), "later": []}
            fresh = {"parameters": parameters, "statistics": statistics, "state": state}
            for start in starts:
                steps.take_up({**fresh, "slots": {}, "scaling": {}, "steps": start})
                steps.run(learning_rate, rows[:many])
                steps.store()
                found["later"].append(session.read())
            return found
        finally:
            self.backend.flush_denormals(False)

    def select(self, path: str) -> None:
        """Restart the pipeline of a path, and drop all others."""
        self._path, self._pipelines = path, {path: self._pipelines[path]}
        self.pipeline.restart()
        gc.collect()
        self._forget_peaks()

    def together(self, wanted: bool) -> Count:
        """Set whether several steps go into one call, if the backend supports it; return steps a
        call."""
        self.pipeline.together = wanted
        return self.pipeline.many

    def feed(self, batches: Sequence[Payload], beside: bool = False) -> None:
        """Feed other batches of the same shapes, in place of all or beside the first."""
        self.pipeline.feed(batches, beside)

    def turn(self, number: int) -> None:
        """Go on with the first set of batches (0), or with the set beside it (1)."""
        self.pipeline.turn(number)

    def restart(self, parameters: Payload | None = None) -> None:
        """Restart from the values given to :meth:`prepare`, or from other parameters."""
        self.pipeline.restart(parameters)

    def latency(self, first: int, count: int) -> Annotated[list[Seconds], Counted("count")]:
        """Return the seconds of each of ``count`` steps from ``first`` on; wait for every step."""
        return Clock(self.pipeline).latency(first, count)

    def stages(
        self, first: int, count: int, many: int = 1
    ) -> Annotated[list[Annotated[list[Seconds], Length(3)]], Counted("count")]:
        """Return the seconds of each stage; see :meth:`harness.runtime.step_loop.Clock.stages`."""
        return [list(step) for step in Clock(self.pipeline).stages(first, count, many)]

    def throughput(self, first: int, count: int) -> Seconds:
        """Return the seconds of ``count`` steps in a row with one wait at their end."""
        return Clock(self.pipeline).throughput(first, count)

    def values(self, first: int, count: int) -> Annotated[list[Arrays], Counted("count")]:
        """Return the results of each of ``count`` steps from ``first`` on."""
        steps = Clock(self.pipeline).values(first, count)
        return [{n: promises.array(a, n) for n, a in step.items()} for step in steps]

    def last(self, back: int) -> Arrays:
        """Return the results of the step ``back`` before the last; see :meth:`.Pipeline.last`."""
        return {n: promises.array(a, n) for n, a in self.pipeline.last(back).items()}

    def copying(self) -> Seconds:
        """Return the seconds to read finished tensors like the last results."""
        return self.pipeline.copying()

    def parameters(self) -> Carried:
        """Return the current parameters, statistics and slots by neutral names, and ``others``."""
        return self.pipeline.parameters()

    def overhead(self, count: int) -> Seconds:
        """Return the seconds of a step that the harness itself takes."""
        return self.pipeline.overhead(count)

    def memory(self) -> MemoryAnswer:
        """Return the most bytes that the process and the device held since :meth:`prepare`."""
        return {
            "resident": memory.peak(),
            "device": promises.memory(self.backend.device_memory(), "device_memory()"),
        }

    def _forget_peaks(self) -> None:
        memory.forget_peak()
        self.backend.forget_device_memory()

    def peaks(
        self, dtype: str, sizes: Sequence[Sequence[int]]
    ) -> Annotated[Peaks, Counted("sizes", "products")]:
        """Return FLOP/s of matrix products ``(m, k, n)`` and bytes/s of an addition, on this
        device."""
        peaks = PeakMeter(self.backend, self._device, dtype)
        return {
            "products": [peaks.product(m, k, n) for m, k, n in sizes],
            "bandwidth": peaks.bandwidth(),
        }
