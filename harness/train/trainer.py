"""Training steps over a text, at the speed of a pipeline. Runs inside the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.arrays import Arrays
from harness.program.plan import TOTAL
from harness.program.signature import group_of
from harness.runtime.backend import Advance
from harness.runtime.native import Tensors
from harness.runtime.session import Session
from harness.runtime.step import make_step, store
from harness.runtime.step_loop import Carry, StepLoop
from harness.spec.initial_values import initial_state
from harness.train.feed import Feed
from harness.train.loader import Loader

# Steps whose losses are summed on the device before the host asks. Every sum begins at a multiple
# of it in its epoch, so that a run that was resumed adds up the same numbers in the same order.
SUMMED = 64  # a multiple of what goes into one call


class _Steps(NamedTuple):
    """Steps, and what they are given."""

    loop: StepLoop
    loader: Loader


class Trainer:
    """A session in training. Raises :class:`UsageError` for what does not fit the program.

    The optimizer is always the spec's equations: what it keeps is neutral, so that a run can be
    taken up by any backend.
    """

    def __init__(self, session: Session, feed: Feed) -> None:
        self.session, self.feed = session, feed
        self._steps_made: dict[Any, _Steps] = {}
        self._carry = Carry()
        self._size = feed.recipe.batch
        self._steps = 0

    def load(
        self,
        parameters: Arrays,
        statistics: Arrays,
        slots: Mapping[str, Arrays],
        state: Arrays,
        steps: int,
    ) -> None:
        """Go on from here; empty ``slots`` and ``state`` are those of the start."""
        self.session.load(parameters, statistics)
        if slots:
            self.session.load_slots(slots, steps)
        self._steps = steps
        self._carry.carried = {}
        self._state = self._tensors_of(state) if state else self._first_state()

    def run(self, rate: float, epoch: int, first: int, count: int) -> list[float]:
        """Steps ``first`` and on of an epoch: the sum of each :data:`SUMMED` losses, every loss
        times the rows of its batch."""
        rows = self.feed.epoch(epoch)[first : first + count]
        if first == 0:
            self._restart_state()
        return [self._sum(rate, rows[i : i + SUMMED]) for i in range(0, len(rows), SUMMED)]

    def snapshot(self) -> dict[str, Any]:
        """Neutral parameters, statistics, slots and state, and the number of steps made."""
        self._store()
        state = group_of(self._state, "state.")
        return {
            **self.session.read(),
            "state": {n: self.session.array(t, f"state.{n}") for n, t in state.items()},
            "steps": self._steps,
        }

    def evaluate(self) -> float | None:
        """The mean loss on the rows that are held out, with the inference program; None if there
        are none."""
        if not self.feed.tested:
            return None
        self._store()
        state: Arrays = initial_state(self.session.programs["inference"], self.feed.tested)
        losses = []
        for numbers in self.feed.held_out():
            arrays = self.feed.batch(numbers)
            inputs, targets = group_of(arrays, "input."), group_of(arrays, "target.")
            results = self.session.forward("inference", inputs, state, targets)
            state = group_of(results, "state.")
            losses.append(float(results["loss"]))
        return float(np.mean(losses))

    def _sum(self, rate: float, batches: Sequence[Any]) -> float:
        """The losses of some steps, times their rows."""
        whole = [rows for rows in batches if len(rows) == self._size]
        total = 0.0
        if whole:
            total += self._run_whole(rate, np.stack(whole)) * self._size
        for rows in batches[len(whole) :]:
            total += self._run_whole(rate, rows[None]) * len(rows)
        return total

    def _run_whole(self, rate: float, rows: Any) -> float:
        """Steps on batches of one size, whose rows are ``[steps, batch]``; the sum of losses."""
        loop, loader = self._made(rate, rows[0])
        self._carry.carried[TOTAL] = self.session.scalar(0.0)
        batches = loader.batches(rows, stacked=loop.several is not None)
        loop.run(self._carry, batches)
        self._steps += len(rows)
        return float(self.session.array(self._carry.carried[TOTAL], "the sum of losses"))

    def _made(self, rate: float, rows: Any) -> _Steps:
        """The step at a learning rate, for a batch like these rows; what is carried suits it."""
        key = (rate, len(rows))
        if key not in self._steps_made:
            self._store()
            backend = self.session.backend
            plain = Loader(self.session, self.feed, rows)
            example = plain.expand(plain.batch(rows))
            step = make_step(self.session, "train", example, self._state, rate, total=True)
            loader = Loader(self.session, self.feed, rows, step.orders)
            advance = self._expanding(step.advance, loader)
            self._steps_made[key] = _Steps(StepLoop.of(backend, advance), loader)
            self._begin = step.begin
        if not self._carry.carried:
            self._carry = Carry(*self._begin(self._state))
        return self._steps_made[key]

    def _expanding(self, advance: Advance, loader: Loader) -> Advance:
        """A step of what the loader gives; of its results only what is carried is of interest."""

        def expanding(carried: Tensors, fixed: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
            return advance(carried, fixed, loader.expand(batch))[0], {}

        return expanding

    def _store(self) -> None:
        """Put what is carried back into the session."""
        if self._carry.carried:
            store(self.session, self._carry.carried)
            self.session.steps = self._steps
            self._state = {n: t for n, t in self._carry.carried.items() if n.startswith("state.")}
            self._carry.carried = {}

    def _restart_state(self) -> None:
        """Each epoch begins with the first state."""
        self._store()
        self._state = self._first_state()

    def _first_state(self) -> Tensors:
        return self._tensors_of(initial_state(self.session.programs["training"], self._size))

    def _tensors_of(self, state: Arrays) -> Tensors:
        return {f"state.{n}": self.session.float_tensor(np.asarray(a)) for n, a in state.items()}
