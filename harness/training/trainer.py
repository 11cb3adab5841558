"""Training steps over data, at the speed of a pipeline. Runs inside the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from harness.arrays import Arrays
from harness.language.added_slots import AVERAGED
from harness.language.initial_values import initial_state
from harness.program.signature import group_of
from harness.runtime.answers import Snapshot
from harness.runtime.native import Tensors
from harness.runtime.session import Session
from harness.runtime.training_steps import TrainingSteps
from harness.training.rows import RowFeed

# Steps whose losses are summed on the device before the host asks. Every sum begins at a multiple
# of it in its epoch, so that a run that was resumed adds up the same numbers in the same order.
SUMMED = 64  # a multiple of what goes into one call


class Trainer:
    """A session in training. Raises :class:`UsageError` for what does not fit the program.

    The optimizer is always the spec's equations: what it keeps is neutral, so that a run can be
    taken up by any backend.
    """

    def __init__(self, session: Session, feed: RowFeed) -> None:
        self.session, self.feed = session, feed
        self._made = TrainingSteps(session, feed)
        self._size = feed.recipe.batch

    def load(
        self,
        parameters: Arrays,
        statistics: Arrays,
        slots: Mapping[str, Arrays],
        state: Arrays,
        scaling: Arrays,
        steps: int,
    ) -> None:
        """Go on from here; empty ``slots``, ``state`` and ``scaling`` are those of the start."""
        self._made.take_up(
            {
                "parameters": parameters,
                "statistics": statistics,
                "slots": slots,
                "state": state or initial_state(self.session.programs["training"], self._size),
                "scaling": scaling,
                "steps": steps,
            }
        )

    def run(self, rate: float, epoch: int, first: int, count: int) -> list[float]:
        """Steps ``first`` and on of an epoch: the sum of each :data:`SUMMED` losses, every loss
        times the rows of its batch."""
        rows = self.feed.epoch(epoch)[first : first + count]
        if first == 0:
            self._restart_state()
        return [self._sum(rate, rows[i : i + SUMMED]) for i in range(0, len(rows), SUMMED)]

    def snapshot(self) -> Snapshot:
        """Neutral parameters, statistics, slots and state, the number of steps made, and in
        float16 the scale of the loss."""
        return self._made.left()

    def evaluate(self, most: int | None = None) -> dict[str, float] | None:
        """The mean ``loss`` on the rows that are held out, with the inference program, and by
        ``metric.NAME`` the metrics; None if there are none. Of no more than ``most`` batches, if
        that is given.

        Where the model keeps a mean of its parameters, the same of that as further metrics.
        """
        if not self.feed.tested:
            return None
        self._made.store()
        found, session = self._tested(most), self.session
        if AVERAGED not in session.slots:
            return found
        trained = dict(session.variables)
        mean = session.slot(AVERAGED, session.slots[AVERAGED])
        packed = session.layout.pack(mean)
        session.variables |= {n: session.float_tensor(a) for n, a in packed.items()}
        averaged = self._tested(most)
        session.variables |= trained
        named = {name.removeprefix("metric."): value for name, value in averaged.items()}
        return found | {f"metric.averaged_{name}": value for name, value in named.items()}

    def _tested(self, most: int | None) -> dict[str, float]:
        state: Arrays = initial_state(self.session.programs["inference"], self.feed.tested)
        found: dict[str, list[float]] = {}
        for numbers in islice(self.feed.held_out(), most):
            arrays = self.feed.batch(numbers)
            inputs, targets = group_of(arrays, "input."), group_of(arrays, "target.")
            results = self.session.forward("inference", inputs, state, targets)
            state = group_of(results, "state.")
            for name, value in results.items():
                if name == "loss" or name.startswith("metric."):
                    found.setdefault(name, []).append(float(value))
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _sum(self, rate: float, batches: Sequence[Any]) -> float:
        """The losses of some steps, times their rows."""
        whole = [rows for rows in batches if len(rows) == self._size]
        total = 0.0
        if whole:
            total += self._made.run(rate, np.stack(whole)) * self._size
        for rows in batches[len(whole) :]:
            total += self._made.run(rate, rows[None]) * len(rows)
        return total

    def _restart_state(self) -> None:
        """Each epoch begins with the first state."""
        self._made.store()
        self._made.state = self._first_state()

    def _first_state(self) -> Tensors:
        return self._tensors_of(initial_state(self.session.programs["training"], self._size))

    def _tensors_of(self, state: Arrays) -> Tensors:
        return {f"state.{n}": self.session.float_tensor(np.asarray(a)) for n, a in state.items()}
