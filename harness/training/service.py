"""Training in a worker: the service makes many steps per call, without sending values to the
harness after each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from harness.arrays import Arrays
from harness.errors import UsageError
from harness.files.system import resident_memory
from harness.language.added_slots import AVERAGED
from harness.language.initial_values import initial_state
from harness.program.signature import group_of
from harness.runtime import promises, service
from harness.runtime.answers import Beginning, MemoryAnswer, Snapshot
from harness.runtime.backend import Backend
from harness.runtime.session import open_session
from harness.runtime.training_steps import TrainingSteps
from harness.text.shared import map_vector
from harness.training.feed import Feed, Recipe, RowFeed
from harness.training.table import TableFeed, map_arrays

# The number of steps whose losses are summed on the device before the host reads the sum. Every sum
# begins at a multiple of SUMMED in its epoch. A resumed training therefore adds the same numbers in
# the same order.
SUMMED = 64  # a multiple of the steps per call


Payload = dict[str, Any]
# The prefix of the names of training calls, which distinguishes them from session calls.
PREFIX = "train_"


class TrainService:
    """The training of a model on the backend of this worker.

    The optimizer always runs as the spec's equations. Its slots therefore have the spec's names,
    and any backend can resume a training. All methods raise :class:`UsageError` for arguments that
    do not fit the model's program.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._steps: TrainingSteps | None = None
        self._feed: RowFeed

    @property
    def steps(self) -> TrainingSteps:
        """The object that makes the steps of the current training.

        Raises:
            UsageError: no training has begun.
        """
        if self._steps is None:
            raise UsageError("no training has begun")
        return self._steps

    def begin(
        self,
        training: Any,
        inference: Any,
        rule: Any,
        path: str,
        dtype: str,
        device: str,
        recipe: Mapping[str, Any],
        text: Mapping[str, Any],
        seed: int,
    ) -> Beginning:
        """Begin a training, which replaces the previous training in this worker.

        ``training`` and ``inference`` are the model's encoded programs, and ``rule`` is its
        optimizer. ``recipe`` has the rules for making batches. ``text`` describes where the data
        are in shared memory. Return ``paths``, which maps each layer to what runs it (``native`` or
        ``equations``), and the backend's ``settings``.

        Raise :class:`UsageError` for an argument that does not fit.
        """
        self.backend.quick, self.backend.exact = False, True
        flushed = self.backend.flush_denormals()
        session = open_session(self.backend, training, inference, rule, path, dtype, device)
        session.use_rule(session.rule, claim=False)
        program, batch_recipe = session.programs["training"], Recipe(**recipe)
        if "arrays" in text:
            self._feed = TableFeed(program, batch_recipe, map_arrays(text), session.dtype, seed)
        else:
            self._feed = Feed(program, batch_recipe, map_vector(text), session.dtype, seed)
        self._steps = TrainingSteps(session, self._feed)
        self.backend.forget_device_memory()
        settings = promises.check_texts(self.backend.settings(), "settings()")
        settings |= {"denormals": "flushed"} if flushed else {}
        return {"paths": session.paths(), "settings": settings}

    def load(
        self,
        parameters: Arrays,
        statistics: Arrays,
        slots: Mapping[str, Arrays] | None = None,
        state: Arrays | None = None,
        scaling: Arrays | None = None,
        steps: int = 0,
    ) -> None:
        """Continue from these arrays, which have the spec's names. If slots, state or loss scale
        (``scaling``) are None, they get their initial values.

        ``steps`` is the number of steps that the training has made before.
        """
        self.steps.resume(
            {
                "parameters": parameters,
                "statistics": statistics,
                "slots": slots or {},
                "state": state or self._first_state(),
                "scaling": scaling or {},
                "steps": steps,
            }
        )

    def run(self, rate: float, epoch: int, first: int, count: int) -> list[float]:
        """Make ``count`` steps of an epoch, from step ``first``, at the learning rate ``rate``.

        The losses are summed in groups of :data:`SUMMED` steps; return the list of these sums. A
        step adds its mean loss, multiplied by the number of rows in its batch. Each epoch begins
        with the model's initial state.
        """
        steps, session = self.steps, self.steps.session
        rows = self._feed.epoch(epoch)[first : first + count]
        if first == 0:
            steps.store()
            start = self._first_state().items()
            steps.state = {f"state.{n}": session.float_tensor(np.asarray(a)) for n, a in start}
        return [self._sum(rate, rows[i : i + SUMMED]) for i in range(0, len(rows), SUMMED)]

    def snapshot(self) -> Snapshot:
        """Return the current values of the training, by the spec's names: parameters, statistics,
        slots, state, the number of steps and the loss scale (only in float16)."""
        return self.steps.snapshot()

    def evaluate(self, most: int | None = None) -> dict[str, float] | None:
        """Return the mean ``loss`` and each mean ``metric.NAME`` over batches of the held-out rows,
        at most ``most`` batches; return None if no rows are held out.

        The model's program for inference computes them. If the optimizer stores averages of the
        parameters, the result also has ``metric.averaged_NAME`` for each of these values, computed
        with the averages.
        """
        steps, session = self.steps, self.steps.session
        if not self._feed.held_out_batch:
            return None
        steps.store()
        metrics = self._evaluate_batches(most)
        if AVERAGED not in session.slots:
            return metrics
        trained = dict(session.variables)
        mean = session.slot(AVERAGED, session.slots[AVERAGED])
        packed = session.layout.pack(mean)
        session.variables |= {n: session.float_tensor(a) for n, a in packed.items()}
        averaged = self._evaluate_batches(most)
        session.variables |= trained
        averaged_metrics = {name.removeprefix("metric."): value for name, value in averaged.items()}
        return metrics | {
            f"metric.averaged_{name}": value for name, value in averaged_metrics.items()
        }

    def memory(self) -> MemoryAnswer:
        """Return two numbers of bytes: ``resident`` is the memory that this process uses now, and
        ``device`` the peak memory of the device in this training."""
        return {
            "resident": resident_memory(),
            "device": promises.check_memory(self.backend.device_memory(), "device_memory()"),
        }

    def _evaluate_batches(self, most: int | None) -> dict[str, float]:
        feed, session = self._feed, self.steps.session
        state: Arrays = initial_state(session.programs["inference"], feed.held_out_batch)
        by_name: dict[str, list[float]] = {}
        for numbers in islice(feed.held_out(), most):
            arrays = feed.batch(numbers)
            inputs, targets = group_of(arrays, "input."), group_of(arrays, "target.")
            results = session.forward("inference", inputs, state, targets)
            state = group_of(results, "state.")
            for name, value in results.items():
                if name == "loss" or name.startswith("metric."):
                    by_name.setdefault(name, []).append(float(value))
        return {name: float(np.mean(values)) for name, values in by_name.items()}

    def _sum(self, rate: float, batches: Sequence[Any]) -> float:
        """Make a step for each of ``batches`` (arrays of row numbers), at the learning rate
        ``rate``. Return the sum of their losses, each multiplied by the number of rows in its
        batch."""
        size = self._feed.recipe.batch
        full_batches = [rows for rows in batches if len(rows) == size]
        total = self.steps.run(rate, np.stack(full_batches)) * size if full_batches else 0.0
        for rows in batches[len(full_batches) :]:
            total += self.steps.run(rate, rows[None]) * len(rows)
        return total

    def _first_state(self) -> Arrays:
        program = self.steps.session.programs["training"]
        return initial_state(program, self._feed.recipe.batch)


def handler(backend: Backend) -> Callable[[str, Payload], Any]:
    """Return the function that answers the calls of a worker: training calls, whose names begin
    with ``train_``, and session calls (single steps and forward passes).

    It raises the errors of :func:`harness.runtime.service.handler`.
    """
    others, verbs = service.handler(backend), TrainService(backend)

    def answer(verb: str, payload: Payload) -> Any:
        if verb.startswith(PREFIX):
            return getattr(verbs, verb.removeprefix(PREFIX))(**(payload or {}))
        return others(verb, payload)

    return answer
