"""Steps in a row; and a pipeline: one model's steps, over batches on the device that rotate."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.arrays import Arrays
from harness.errors import UsageError
from harness.program.ir import Phase
from harness.program.plan import BATCH
from harness.runtime import promises
from harness.runtime.backend import Advance, Backend
from harness.runtime.clock import Results
from harness.runtime.native import Tensors
from harness.runtime.session import Session
from harness.runtime.step import OPTIMIZER, Purpose, make_step, store

Batch = Mapping[str, Arrays]


@dataclass
class Carry:
    """What goes from step to step, and what does not.

    Steps put what they make in the place of what they were given, which may be as large as all
    memory that is left: nothing else is to hold it.
    """

    carried: Tensors = field(default_factory=dict)
    fixed: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class StepLoop:
    """Steps in a row: ``one`` at a time, or ``several`` in a call where the backend has a way."""

    one: Advance
    several: Advance | None = None

    @staticmethod
    def of(backend: Backend, step: Advance) -> StepLoop:
        """A step as the backend compiles it.

        Raises:
            ContractError: what the backend gives is no function.
        """
        one, several = backend.advance(step), backend.several(step)
        return StepLoop(
            promises.function(one, "advance()"),
            None if several is None else promises.function(several, "several()"),
        )

    def run(self, carry: Carry, batches: Iterable[tuple[Tensors, bool]]) -> Tensors:
        """The results of the last step; a batch is a stack of several where that is true."""
        results: Tensors = {}
        several = self.several or self.one
        for batch, stacked in batches:
            step = several if stacked else self.one
            carry.carried, results = step(carry.carried, carry.fixed, batch)
        return results


class Pipeline:
    """Steps (see :class:`harness.runtime.clock.Steps`) of a session from given parameters.

    ``batches`` hold ``inputs`` and ``targets``, all of the same shapes; ``state`` is that of the
    first step. Where the backend has a way to make several steps in one call, as many as there are
    batches go into one, unless ``together`` is made false: that is not the faster way for all.
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
        self._values = (parameters, statistics, state)
        session.load(parameters, statistics)
        batch = self._tensors(_some(batches)[0])
        self._step = make_step(session, purpose, batch, self._state(), learning_rate)
        self.feed(batches)
        self._step_advance = self._step.advance
        self._loop = StepLoop.of(session.backend, self._step_advance)
        self.together = True
        self._carry = Carry(*self._step.begin(self._state()))

    @property
    def many(self) -> int:
        """Steps in one call of :meth:`run`."""
        return len(self._batches) if self._loop.several is not None and self.together else 1

    def feed(self, batches: Sequence[Batch]) -> None:
        """Other batches in place of the present ones; :class:`UsageError` if there are none.

        Each is laid out here as the step takes it, once.
        """
        self._batches = [self._arranged(self._tensors(batch)) for batch in _some(batches)]
        self._stack: Tensors = {}

    def restart(self) -> None:
        """Parameters, statistics, state and optimizer as they were at first."""
        parameters, statistics, _ = self._values
        self.session.load(parameters, statistics)
        self._carry = Carry(*self._step.begin(self._state()))

    def start(self, index: int) -> Tensors:
        """Begin a step; see :class:`harness.runtime.clock.Steps`."""
        return self._loop.run(self._carry, [(self._batches[index % len(self._batches)], False)])

    def run(self, first: int, count: int) -> Tensors:
        """Begin ``count`` steps; the handle of the last."""
        return self._loop.run(self._carry, self._cycle(first, first + count))

    def _cycle(self, index: int, end: int) -> Iterator[tuple[Tensors, bool]]:
        """The batches of some steps in turn; all in one stack where several steps are one call."""
        count, many = len(self._batches), self.many
        while index < end:
            if many > 1 and index % many == 0 and end - index >= many:
                yield self._stacked(), True
                index += many
            else:
                yield self._batches[index % count], False
                index += 1

    def finish(self, handle: Tensors) -> Results:
        """Wait for a step and for all that it hands on."""
        backend = self.session.backend
        backend.wait({n: t for n, t in self._carry.carried.items() if n != OPTIMIZER})
        return {n: backend.numpy(t) for n, t in handle.items()}

    def parameters(self) -> dict[str, Any]:
        """Neutral ``parameters``, ``statistics`` and ``slots`` as they now are."""
        store(self.session, self._carry.carried)
        return self.session.read()

    def overhead(self, count: int) -> float:
        """Seconds of a :meth:`start` with the framework left out; then it begins anew.

        A step that the framework has compiled is left out whole.
        """
        arguments = self._carry.carried, self._carry.fixed, self._batches[0]
        if self._loop.one is self._step_advance:
            idle = self._step.idle(*arguments)
        else:
            returned = self._loop.one(*arguments)
            self._carry.carried = returned[0]
            idle = lambda *_: returned  # noqa: E731
        self._loop, whole = StepLoop(idle), self._loop
        begin = time.perf_counter()
        for index in range(count):
            self.start(index)
        seconds = time.perf_counter() - begin
        self._loop = whole
        self.restart()
        return seconds / count

    def _stacked(self) -> Tensors:
        if not self._stack:
            stack = self.session.backend.stack
            self._stack = {n: stack([b[n] for b in self._batches]) for n in self._batches[0]}
        return self._stack

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

    def _arranged(self, batch: Tensors) -> Tensors:
        """The tensors of a batch in the orders of axes that the step asks for."""
        backend, orders = self.session.backend, self._step.orders
        moved = {n: backend.numpy(batch[n]).transpose(axes) for n, axes in orders.items()}
        return {**batch, **{n: backend.tensor(np.ascontiguousarray(a)) for n, a in moved.items()}}


def _some(batches: Sequence[Batch]) -> Sequence[Batch]:
    if not batches:
        raise UsageError("a pipeline needs at least one batch")
    return batches
