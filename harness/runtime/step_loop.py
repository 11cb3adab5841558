"""Run the steps of a model one after another. The batches are on the device, and are used in
turn."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.errors import UsageError, several
from harness.program.ir import Phase
from harness.program.plan import BATCH
from harness.runtime import promises
from harness.runtime.answers import PipelineValues
from harness.runtime.backend import Backend
from harness.runtime.native import Advance, Tensors
from harness.runtime.precision import host_dtype
from harness.runtime.session import Session
from harness.runtime.step import OPTIMIZER, Purpose, make_step, store

Results = ArrayDict


class Steps(Protocol):
    """Training steps or forward passes. The batches are on the device, and are used in turn."""

    def start(self, index: int) -> Any:
        """Begin step ``index`` without waiting for it; return a handle that :meth:`finish` needs.

        The step uses batch ``index`` modulo the number of batches.
        """

    def finish(self, handle: Any) -> Results:
        """Wait for the step that ``handle`` stands for. Return its ``loss`` in training, or its
        outputs in a forward pass."""


@runtime_checkable
class Runs(Protocol):
    """Steps of which one call can start several. This is faster than a call per step."""

    def run(self, first: int, count: int) -> Any:
        """Begin ``count`` steps, from step ``first``, without waiting for them; return the handle
        of the last step."""


class Clock:
    """A stopwatch for steps. It stops when the results have arrived on the host, so a backend
    cannot report unfinished steps as done."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def latency(self, first: int, count: int) -> list[float]:
        """Return the seconds of each of ``count`` steps, beginning with step ``first``. The clock
        waits for the end of every step."""
        seconds = []
        for index in range(first, first + count):
            start = time.perf_counter()
            self.steps.finish(self.steps.start(index))
            seconds.append(time.perf_counter() - start)
        return seconds

    def stages(self, first: int, count: int, many: int = 1) -> list[tuple[float, float, float]]:
        """Return three numbers of seconds for each of ``count`` calls; each call makes ``many``
        steps. ``first`` is the index of the first step.

        The three numbers are: the time to start the call, the time until its results have been
        read, and the time to read the same results again.
        """
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
        """Return the seconds of ``count`` steps together, beginning with step ``first``. There is
        one wait, after the last step."""
        start = time.perf_counter()
        self.steps.finish(self._run(first, count))
        return time.perf_counter() - start

    def values(self, first: int, count: int) -> list[Results]:
        """Return the results of each of ``count`` steps, beginning with step ``first``. Nothing is
        timed."""
        return [self.steps.finish(self.steps.start(i)) for i in range(first, first + count)]

    def _run(self, first: int, count: int) -> Any:
        if isinstance(self.steps, Runs):
            return self.steps.run(first, count)
        handle = None
        for index in range(first, first + count):
            handle = self.steps.start(index)
        return handle


Batch = Mapping[str, Arrays]

TRIES = 5


@dataclass
class Carry:
    """The tensors of a step: those that go from step to step (``carried``, e.g. parameters), and
    those that are the same in all steps (``fixed``).

    Each step replaces ``carried`` by its results. The old tensors may be too large to keep, so no
    other object may refer to them.
    """

    carried: Tensors = field(default_factory=dict)
    fixed: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class StepLoop:
    """The compiled steps of a model: ``one`` makes one step per call, and ``several`` makes many
    steps per call. ``several`` is None if the backend does not offer that."""

    one: Advance
    several: Advance | None = None

    @staticmethod
    def of(backend: Backend, step: Advance) -> StepLoop:
        """Let the backend compile a step; return an object that runs the compiled step in a loop.

        Raises:
            ContractError: the backend did not return a function.
        """
        one, several = backend.advance(step), backend.several(step)
        return StepLoop(
            promises.check_function(one, "advance()"),
            None if several is None else promises.check_function(several, "several()"),
        )

    def run(self, carry: Carry, batches: Iterable[tuple[Tensors, bool]]) -> StepHandle:
        """Run a step on each batch, and return the results of the last call. ``carry`` has the
        tensors that go from step to step, and is updated.

        Each batch comes with a flag, which is True if the batch is a stack of several batches. A
        stack needs a single call.
        """
        results: Tensors = {}
        stacked, several = False, self.several or self.one
        for batch, stacked in batches:
            step = several if stacked else self.one
            carry.carried, results = step(carry.carried, carry.fixed, batch)
        return StepHandle(results, stacked)


@dataclass(frozen=True)
class StepHandle:
    """The results of a call that may still be running. ``stacked`` is True if the call makes
    several steps; the results then have the shape ``[steps, ...]``."""

    results: Tensors
    stacked: bool


@dataclass
class BatchList:
    """Batches on the device. The stack of all of them is made when it is first needed."""

    batches: list[Tensors]
    stack: Tensors = field(default_factory=dict)

    def refill(self, backend: Backend, batches: Sequence[Tensors]) -> None:
        """Overwrite the tensors of these batches with other batches of the same shapes."""
        self.stack = {}
        for tensors, batch in zip(self.batches, batches, strict=True):
            for name, tensor in tensors.items():
                backend.fill(tensor, backend.numpy(batch[name]))


class Pipeline:
    """The steps of a session, starting from given parameters; see
    :class:`harness.runtime.step_loop.Steps`. The steps are those that benchmarks time.

    ``batches`` have ``inputs`` and ``targets``, and all have the same shapes. ``state`` is the
    state before the first step. If the backend can make several steps in one call, each call makes
    as many steps as there are batches. ``together = False`` turns this off, because some backends
    are slower with it.
    """

    def __init__(
        self,
        session: Session,
        purpose: Purpose,
        parameters: Arrays,
        statistics: Arrays,
        state: Arrays,
        batches: Sequence[Batch],
        learning_rate: float,
    ) -> None:
        self.session, self.purpose = session, purpose
        # Kept for each restart: float64 copies would need twice the memory.
        host = host_dtype(session.dtype)
        self._values = ({n: np.asarray(a, host) for n, a in parameters.items()}, statistics, state)
        session.load(parameters, statistics)
        batch = self._tensors(_require_batches(batches)[0])
        self._step = make_step(session, purpose, batch, self._state(), learning_rate)
        self._step_advance = self._step.advance
        self._loop = StepLoop.of(session.backend, self._step_advance)
        self.together = True
        self._batch_lists: list[BatchList] = []
        self.feed(batches)
        self._carry = Carry(*self._step.begin(self._state()))
        self._last: StepHandle | None = None
        # The results of the last call, as they were when first read.
        self._read: Results = {}

    @property
    def many(self) -> int:
        """The number of steps that :meth:`run` makes in one call of the backend."""
        return len(self._batches) if self._loop.several is not None and self.together else 1

    @property
    def _batches(self) -> list[Tensors]:
        return self._batch_list.batches

    def feed(self, batches: Sequence[Batch], beside: bool = False) -> None:
        """Replace the batches; later steps use the new ones. If ``beside`` is true, they become a
        second list, the first list stays, and :meth:`turn` switches between the two.

        The axes of each batch are put in the order that the step needs. If the backend can write
        into tensors, the new batches are written into the tensors of the old ones, because a
        compiled step may read this memory.

        Raises:
            UsageError: there are no batches.
        """
        arranged = [self._arrange(self._tensors(batch)) for batch in _require_batches(batches)]
        place = int(beside)
        backend, existing = self.session.backend, self._batch_lists[place:]
        if backend.rewrites and existing and len(existing[0].batches) == len(arranged):
            existing[0].refill(backend, arranged)
        else:
            self._batch_lists[place:] = [BatchList(arranged)]
        self.turn(place)
        if self.many > 1:
            self.session.backend.wait(self._stacked())

    def turn(self, number: int) -> None:
        """Let later steps use the first list of batches (0), or the second (1)."""
        self._batch_list = self._batch_lists[number]

    def restart(self, parameters: Arrays | None = None) -> None:
        """Reset parameters, statistics, state and optimizer to their initial values. If
        ``parameters`` is given, it is used instead of the initial parameters.

        A compiled step may read the memory of the fixed tensors, which no step changes. So if the
        backend can write into tensors, their initial values are written into the existing tensors.
        """
        first, statistics, _ = self._values
        backend, before = self.session.backend, self._carry.fixed
        if not backend.rewrites:
            self._carry = Carry()  # free its memory before the new tensors need theirs
        self.session.load(first if parameters is None else parameters, statistics)
        carried, fixed = self._step.begin(self._state())
        if backend.rewrites:
            for name, tensor in before.items():
                backend.fill(tensor, backend.numpy(fixed[name]))
            store(self.session, fixed := before)
        self._carry = Carry(carried, fixed)

    def start(self, index: int) -> StepHandle:
        """Begin step ``index``; return a handle that :meth:`finish` needs."""
        return self._begin([(self._batches[index % len(self._batches)], False)])

    def run(self, first: int, count: int) -> StepHandle:
        """Begin ``count`` steps, from step ``first``; return a handle of the last call, which
        :meth:`finish` needs."""
        return self._begin(self._cycle(first, first + count))

    def _begin(self, batches: Iterable[tuple[Tensors, bool]]) -> StepHandle:
        self._last, self._read = None, {}  # free their memory
        self._last = self._loop.run(self._carry, batches)
        return self._last

    def _cycle(self, index: int, end: int) -> Iterator[tuple[Tensors, bool]]:
        """Yield the batch of each step from ``index`` to ``end - 1``, with the flag False.

        If one call can make several steps, yield a stack of all batches with the flag True instead,
        where enough steps are left.
        """
        count, many = len(self._batches), self.many
        while index < end:
            if many > 1 and index % many == 0 and end - index >= many:
                yield self._stacked(), True
                index += many
            else:
                yield self._batches[index % count], False
                index += 1

    def finish(self, handle: StepHandle) -> Results:
        """Wait for a step, and for all tensors that it passes on to the next step; return its
        results.

        If a call made several steps, wait for the results of each of them, because the backend may
        compute them late. Return the results of the last step.
        """
        backend = self.session.backend
        backend.wait({n: t for n, t in self._carry.carried.items() if n != OPTIMIZER})
        arrays = {n: backend.numpy(t) for n, t in handle.results.items()}
        if handle is self._last and not self._read:
            self._read = arrays
        return {n: a[-1] for n, a in arrays.items()} if handle.stacked else arrays

    def last(self, back: int) -> Results:
        """Return the results of an earlier step of the last call: of the step ``back`` steps before
        the last step.

        The results are those that were read first, when :meth:`finish` was called.

        Raises:
            UsageError: the last call made fewer steps, or its results have not been read.
        """
        stacked = self._last is not None and self._last.stacked
        count = len(self._batches) if stacked else 1
        if not self._read or back >= count:
            raise UsageError(
                f"the results of the step {several(back, 'step')} before the last were not kept"
            )
        return {n: a[count - 1 - back] for n, a in self._read.items()} if stacked else self._read

    def copying(self) -> float:
        """Return the seconds to read tensors that need no computation and have the shapes of the
        last results. It is the slowest of several tries."""
        backend = self.session.backend
        tensors = {n: backend.tensor(np.array(a)) for n, a in self._read.items()}
        backend.wait(tensors)
        seconds = []
        for _ in range(TRIES):
            started = time.perf_counter()
            for tensor in tensors.values():
                backend.numpy(tensor)
            seconds.append(time.perf_counter() - started)
        return max(seconds)

    def parameters(self) -> PipelineValues:
        """Return a dictionary with the current ``parameters``, ``statistics``, ``slots`` and
        ``others``, each a dictionary of arrays by name.

        ``others`` has all other tensors that go from step to step, such as the state.
        """
        store(self.session, self._carry.carried)
        values = self.session.read()
        slots = {f"{s}.{n}" for s, named in self.session.slots.items() for n in named}
        own_names = {*self.session.variables, *slots, OPTIMIZER}
        others = {
            n: self.session.array(t, n)
            for n, t in self._carry.carried.items()
            if n not in own_names and not n.startswith("statistics.")
        }
        return {**values, "others": others}

    def overhead(self, count: int) -> float:
        """Return the seconds per step that the harness itself needs, measured in ``count`` steps:
        the time of :meth:`start` without the framework's computation.

        If the framework has compiled the whole step, all of it counts as the framework's
        computation. The pipeline restarts afterwards.
        """
        arguments = self._carry.carried, self._carry.fixed, self._batches[0]
        if self._loop.one is self._step_advance:
            idle = self._step.idle(*arguments)
        else:
            returned = self._loop.one(*arguments)
            self._carry.carried = returned[0]
            idle = lambda *_: returned  # noqa: E731
        self._loop, loop = StepLoop(idle), self._loop
        begin = time.perf_counter()
        for index in range(count):
            self.start(index)
        seconds = time.perf_counter() - begin
        self._loop = loop
        self.restart()
        return seconds / count

    def _stacked(self) -> Tensors:
        if not self._batch_list.stack:
            stack = self.session.backend.stack
            self._batch_list.stack = {
                n: stack([b[n] for b in self._batches]) for n in self._batches[0]
            }
        return self._batch_list.stack

    def _state(self) -> Tensors:
        return {f"state.{n}": self.session.float_tensor(a) for n, a in self._values[2].items()}

    def _tensors(self, batch: Batch) -> Tensors:
        phase: Phase = "training" if self.purpose == "train" else "inference"
        targets = batch["targets"] if self.purpose == "train" else {}
        variables, constants = self.session.arguments(
            phase, batch["inputs"], self._values[2], targets
        )
        both = {**variables, **constants}
        return {n: t for n, t in both.items() if n.startswith(BATCH)}

    def _arrange(self, batch: Tensors) -> Tensors:
        backend, orders = self.session.backend, self._step.orders
        moved = {n: backend.numpy(batch[n]).transpose(axes) for n, axes in orders.items()}
        return {**batch, **{n: backend.tensor(np.asarray(a, order="C")) for n, a in moved.items()}}


def _require_batches(batches: Sequence[Batch]) -> Sequence[Batch]:
    if not batches:
        raise UsageError("a pipeline needs at least one batch")
    return batches
