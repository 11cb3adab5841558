"""The verbs of a worker that are about training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.arrays import Arrays
from harness.errors import UsageError
from harness.program.ir import Program
from harness.runtime import memory, promises, service
from harness.runtime.answers import Beginning, MemoryAnswer, Snapshot
from harness.runtime.backend import Backend
from harness.runtime.session import open_session
from harness.text.shared import mapped
from harness.training.feed import Feed
from harness.training.rows import Recipe, RowFeed
from harness.training.table import TableFeed, mapped_arrays
from harness.training.trainer import Trainer

Payload = dict[str, Any]
# Of the verbs of a training, beside those of a session.
PREFIX = "train_"


class TrainService:
    """Holds the training of one backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._trainer: Trainer | None = None

    @property
    def trainer(self) -> Trainer:
        """The current training.

        Raises:
            UsageError: none has begun.
        """
        if self._trainer is None:
            raise UsageError("no training has begun")
        return self._trainer

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
        """A training in place of the last one, on data that another process has laid out.

        Returns the path of each layer and the settings.
        """
        self.backend.quick, self.backend.exact = False, True
        flushed = self.backend.flush_denormals()
        session = open_session(self.backend, training, inference, rule, path, dtype, device)
        session.use_rule(session.rule, claim=False)
        given = Recipe(**recipe)
        program = session.programs["training"]
        feed = feed_of(program, given, text, session.dtype, seed)
        self._trainer = Trainer(session, feed)
        self.backend.forget_device_memory()
        settings = promises.texts(self.backend.settings(), "settings()")
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
        """Go on from these arrays; whatever is missing is that of the start."""
        self.trainer.load(parameters, statistics, slots or {}, state or {}, scaling or {}, steps)

    def run(self, rate: float, epoch: int, first: int, count: int) -> list[float]:
        """Sums of losses of some steps of an epoch: see :meth:`Trainer.run`."""
        return self.trainer.run(rate, epoch, first, count)

    def snapshot(self) -> Snapshot:
        """All that a run goes on from: see :meth:`Trainer.snapshot`."""
        return self.trainer.snapshot()

    def evaluate(self, most: int | None = None) -> dict[str, float] | None:
        """The mean loss and metrics on the rows that are held out: see :meth:`Trainer.evaluate`."""
        return self.trainer.evaluate(most)

    def memory(self) -> MemoryAnswer:
        """Bytes: of the process now, and the most in use on a device since the training began."""
        return {
            "resident": memory.resident(),
            "device": promises.memory(self.backend.device_memory(), "device_memory()"),
        }


def feed_of(
    program: Program, given: Recipe, told: Mapping[str, Any], dtype: str, seed: int
) -> RowFeed:
    """The batches of a text or of arrays that lie in another process."""
    if "arrays" in told:
        return TableFeed(program, given, mapped_arrays(told), dtype, seed)
    return Feed(program, given, mapped(told), dtype, seed)


def handler(backend: Backend) -> Callable[[str, Payload], Any]:
    """The function that answers calls about training, and all that any worker is asked.

    Raises what :func:`harness.runtime.service.handler` does.
    """
    others, verbs = service.handler(backend), TrainService(backend)

    def answer(verb: str, payload: Payload) -> Any:
        if verb.startswith(PREFIX):
            return getattr(verbs, verb.removeprefix(PREFIX))(**(payload or {}))
        return others(verb, payload)

    return answer
