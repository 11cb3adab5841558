"""The calls to a worker that measure speed: they prepare the steps of a model, and time them."""

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
from harness.files.system import forget_peak_memory, peak_memory
from harness.runtime import promises
from harness.runtime.answers import (
    Arrays,
    Count,
    EqualLength,
    Length,
    MemoryAnswer,
    Peaks,
    PipelineValues,
    Prepared,
    Seconds,
    TrainingAnswer,
)
from harness.runtime.backend import Backend
from harness.runtime.labels import CPU, card_of
from harness.runtime.native import Tensors
from harness.runtime.precision import WIDTHS, host_dtype, narrow
from harness.runtime.session import open_session
from harness.runtime.step_loop import Clock, Pipeline
from harness.runtime.training_steps import ListedBatches, TrainingSteps

# The size of each of the three arrays of the bandwidth test: entries on a CPU, bytes on a GPU. It
# is far larger than any cache; the L2 cache of an H100 has 50 MB, and later GPUs have more.
LARGE_ARRAY, LARGE_ON_CARD = 1 << 24, 1 << 29
TRIES = 5
# The number of entries of a matrix product that are checked. Their allowed error is OFF times the
# square root of the number of summed terms.
LOOKED_AT, OFF = 16, 0.1
# A backend has deferred a product to its read-back if a product with read-back takes more than READ
# times as long as one without, and more than LONG seconds. The copying itself does not count. In
# less than LONG seconds, the overhead of calls would matter.
READ, LONG = 2.0, 1e-3

Binary = Callable[[Any, Any], Any]


def bandwidth_numbers(device: str, dtype: str) -> int:
    """Return how many entries each array of the bandwidth test has, so that the arrays are larger
    than the caches of the device."""
    return LARGE_ARRAY if card_of(device) is None else LARGE_ON_CARD // WIDTHS[dtype]


class PeakMeter:
    """A measurement of the highest speeds of one backend on one device and in one dtype: of matrix
    products in FLOP/s, and of memory in bytes/s.

    The results are verified: a matrix product must be correct, and must be computed before the
    clock stops.
    """

    def __init__(self, backend: Backend, device: str, dtype: str) -> None:
        self.backend, self.device, self.dtype = backend, device, dtype

    def product(self, m: int, k: int, n: int) -> float:
        """Return the speed of a matrix product ``[m, k] @ [k, n]`` in FLOP/s.

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
        """Return the speed of an addition in bytes/s. The arrays are larger than all caches, so the
        speed of the memory is measured."""
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

        compiled = promises.check_function(self.backend.compile(function), "compile()")
        return lambda a, b: compiled({"a": a, "b": b}, {})["result"]

    def _operand(self, array: Array) -> Any:
        tensor = self.backend.tensor(array.astype(host_dtype(self.dtype)))
        narrowed = narrow(self.dtype)
        return self.backend.primitives["astype"](tensor, dtype=narrowed) if narrowed else tensor

    def _read(self, multiply: Binary, a: Any, b: Any, left: Array, right: Array) -> float:
        """Time one matrix product ``multiply(a, b)``, until its result has been read; return the
        seconds without the reading.

        The time of the reading is measured separately, on an array of the same shape. ``left`` and
        ``right`` are the values of the tensors ``a`` and ``b``. Randomly chosen entries of the
        result must be those of ``left @ right``.
        """
        cast, wide = self.backend.primitives["astype"], host_dtype(self.dtype)
        started = time.perf_counter()
        result = multiply(a, b)
        result = cast(result, dtype=wide) if narrow(self.dtype) else result
        values = promises.check_array(self.backend.numpy(result), "the result of matmul")
        seconds = time.perf_counter() - started
        same = self.backend.tensor(np.array(values))
        self.backend.wait({"same": same})
        started = time.perf_counter()
        self.backend.numpy(same)
        seconds -= time.perf_counter() - started
        if not _is_product(values, left, right):
            raise promises.ContractError(
                f"the result of matmul of {list(left.shape)} and {list(right.shape)} is "
                "not the product"
            )
        return seconds

    def _seconds(self, run: Binary, a: Any, b: Any) -> float:
        """Return the seconds per call of ``run(a, b)``: the fastest of several tries, each of which
        takes about 0.01 seconds."""

        def timed(count: int) -> float:
            started = time.perf_counter()
            for _ in range(count):
                result = run(a, b)
            self.backend.wait({"result": result})
            return (time.perf_counter() - started) / count

        timed(1)
        count = max(1, round(0.01 / max(median(timed(1) for _ in range(3)), 1e-7)))
        return min(timed(count) for _ in range(TRIES))


def _is_product(product: Array, left: Array, right: Array) -> bool:
    """Return whether randomly chosen entries of ``product`` are those of ``left @ right``."""
    rows, columns = shape = len(left), right.shape[1]
    most, draw = OFF * left.shape[1] ** 0.5, SystemRandom()
    places = [(draw.randrange(rows), draw.randrange(columns)) for _ in range(LOOKED_AT)]
    return product.shape == shape and all(
        abs(product[i, j] - left[i].astype(np.float64) @ right[:, j].astype(np.float64)) <= most
        for i, j in places
    )


Payload = dict[str, Any]


class StepService:
    """The service that times the steps of a model in a worker. For each execution path, it can hold
    the compiled steps (a pipeline)."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._pipelines: dict[str, Pipeline] = {}
        self._path, self._device = "", CPU

    @property
    def pipeline(self) -> Pipeline:
        """The compiled steps (:class:`Pipeline`) of the selected execution path.

        Raises:
            UsageError: no steps are prepared.
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
        """Compile the steps of a model for the execution path ``path``. They replace all earlier
        steps or, with ``beside``, only those of the same path.

        ``mode`` is ``train`` or ``forward``. Return a dictionary with what runs each layer, the
        seconds of this call, the steps per call, and the backend's settings.
        """
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
        self.forget_peaks()
        return {
            "paths": session.paths(),
            "seconds": seconds,
            "many": self.pipeline.many,
            "settings": promises.check_texts(self.backend.settings(), "settings()"),
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
    ) -> Annotated[TrainingAnswer, EqualLength("starts", "later")]:
        """Train a model in the same way as ``harness train``, with the derived gradient and the
        optimizer's equations, and return its values.

        The steps are compiled for speed, and denormals are flushed. One call makes ``many`` steps
        if the backend supports it. Before the last ``many`` steps, the training is saved and
        resumed, as with a checkpoint.

        For each number in ``starts``, one more training starts from the given parameters, with new
        optimizer slots but with this number as its step count. It makes ``many`` steps on the first
        batches.

        Return a dictionary: ``total`` is the sum of the losses of all steps (one step per batch).
        It also has the parameters, statistics and slots after the last step. ``later`` has the same
        values at the end of each of the further trainings.
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
            steps.resume(steps.snapshot())
            total += steps.run(learning_rate, rows[-many:])
            steps.store()
            answer: TrainingAnswer = {"total": total, **session.read(), "later": []}
            fresh = {"parameters": parameters, "statistics": statistics, "state": state}
            for start in starts:
                steps.resume({**fresh, "slots": {}, "scaling": {}, "steps": start})
                steps.run(learning_rate, rows[:many])
                steps.store()
                answer["later"].append(session.read())
            return answer
        finally:
            self.backend.flush_denormals(False)

    def select(self, path: str) -> None:
        """Use the steps of this execution path from now on. They restart, and the steps of all
        other paths are dropped."""
        self._path, self._pipelines = path, {path: self._pipelines[path]}
        self.pipeline.restart()
        gc.collect()
        self.forget_peaks()

    def together(self, wanted: bool) -> Count:
        """Set whether one call may make several steps (``wanted``); return how many steps one call
        then makes."""
        self.pipeline.together = wanted
        return self.pipeline.many

    def feed(self, batches: Sequence[Payload], beside: bool = False) -> None:
        """Use other batches of the same shapes. With ``beside``, the old batches stay too; see
        :meth:`.Pipeline.feed`."""
        self.pipeline.feed(batches, beside)

    def turn(self, number: int) -> None:
        """Let later steps use the first list of batches (0), or the second list (1)."""
        self.pipeline.turn(number)

    def restart(self, parameters: Payload | None = None) -> None:
        """Restart the steps from the values given to :meth:`prepare`. If ``parameters`` is given,
        it is used instead of the initial parameters."""
        self.pipeline.restart(parameters)

    def latency(self, first: int, count: int) -> Annotated[list[Seconds], EqualLength("count")]:
        """Return the seconds of each of ``count`` steps, beginning with step ``first``. The clock
        waits for the end of every step."""
        return Clock(self.pipeline).latency(first, count)

    def stages(
        self, first: int, count: int, many: int = 1
    ) -> Annotated[list[Annotated[list[Seconds], Length(3)]], EqualLength("count")]:
        """Return three numbers of seconds for each of ``count`` calls: the time to start, until the
        results are read, and to read them again. See :meth:`.Clock.stages`."""
        return [list(step) for step in Clock(self.pipeline).stages(first, count, many)]

    def throughput(self, first: int, count: int) -> Seconds:
        """Return the seconds of ``count`` steps together, beginning with step ``first``. There is
        one wait, after the last step."""
        return Clock(self.pipeline).throughput(first, count)

    def values(self, first: int, count: int) -> Annotated[list[Arrays], EqualLength("count")]:
        """Run ``count`` steps, beginning with step ``first``, and return the results of each.
        Nothing is timed."""
        steps = Clock(self.pipeline).values(first, count)
        return [{n: promises.check_array(a, n) for n, a in step.items()} for step in steps]

    def last(self, back: int) -> Arrays:
        """Return the results of the step ``back`` steps before the last step, as they were read
        first; see :meth:`.Pipeline.last`."""
        return {n: promises.check_array(a, n) for n, a in self.pipeline.last(back).items()}

    def copying(self) -> Seconds:
        """Return the seconds to read tensors that are already computed; see
        :meth:`.Pipeline.copying`."""
        return self.pipeline.copying()

    def parameters(self) -> PipelineValues:
        """Return the current ``parameters``, ``statistics``, ``slots`` and ``others`` (e.g. the
        state), each as arrays by name; see :meth:`.Pipeline.parameters`."""
        return self.pipeline.parameters()

    def overhead(self, count: int) -> Seconds:
        """Return the seconds per step that the harness itself needs, measured in ``count``
        steps."""
        return self.pipeline.overhead(count)

    def memory(self) -> MemoryAnswer:
        """Return a dictionary with the peak bytes of this process (``resident``) and of the
        ``device`` since :meth:`forget_peaks`, or since :meth:`prepare`."""
        return {
            "resident": peak_memory(),
            "device": promises.check_memory(self.backend.device_memory(), "device_memory()"),
        }

    def forget_peaks(self) -> None:
        """Free unused memory, and let :meth:`memory` count from now on."""
        forget_peak_memory()
        self.backend.forget_device_memory()

    def peaks(
        self, dtype: str, sizes: Sequence[Sequence[int]]
    ) -> Annotated[Peaks, EqualLength("sizes", "products")]:
        """Return a dictionary: ``products`` has the FLOP/s of a matrix product for each ``(m, k,
        n)`` in ``sizes``, and ``bandwidth`` the bytes/s of an addition."""
        peaks = PeakMeter(self.backend, self._device, dtype)
        return {
            "products": [peaks.product(m, k, n) for m, k, n in sizes],
            "bandwidth": peaks.bandwidth(),
        }
