"""The training of a worker as typed calls, which :mod:`harness.training.service` answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.arrays import Arrays
from harness.errors import UsageError
from harness.program.serial import encoded
from harness.training.kept import TrainingError
from harness.training.request import Setup
from harness.worker import answers
from harness.worker.remote import WorkerFault, answered
from harness.worker.worker import Worker


@dataclass(frozen=True)
class TrainRemote:
    """A training in a worker. All methods raise :class:`UsageError` for what a backend cannot do,
    and :class:`TrainingError` for a call that fails."""

    worker: Worker
    setup: Setup

    def begin(self, path: str) -> Mapping[str, Any]:
        """A training on a path, still without parameters: ``paths`` and ``settings``."""
        setup, request = self.setup, self.setup.request
        told: Mapping[str, Any] = self._ask(
            "begin",
            training=encoded(setup.training),
            inference=encoded(setup.inference),
            rule=encoded(setup.spec.update),
            path=path,
            dtype=request.dtype,
            device=request.device,
            recipe=asdict(setup.recipe),
            text=setup.data.told(),
            seed=request.seed,
        )
        return told

    def load(
        self,
        parameters: Arrays,
        statistics: Arrays,
        slots: Mapping[str, Arrays] | None = None,
        state: Arrays | None = None,
        scaling: Arrays | None = None,
        steps: int = 0,
    ) -> None:
        """Go on from here; what is left out is that of the start."""
        self._ask(
            "load",
            parameters=parameters,
            statistics=statistics,
            slots=slots or {},
            state=state or {},
            scaling=scaling or {},
            steps=steps,
        )

    def run(self, rate: float, epoch: int, first: int, count: int) -> list[float]:
        """Steps of an epoch: the sum of each :data:`harness.training.trainer.SUMMED` losses."""
        return list(self._ask("run", rate=rate, epoch=epoch, first=first, count=count))

    def snapshot(self) -> Mapping[str, Any]:
        """``parameters``, ``statistics``, ``slots``, ``state``, ``scaling`` and ``steps``."""
        found: Mapping[str, Any] = self._ask("snapshot")
        return found

    def evaluate(self, most: int | None = None) -> dict[str, float] | None:
        """The mean loss and metrics on the rows that are held out, if there are any; of no more
        than ``most`` batches, if that is given."""
        found: dict[str, float] | None = self._ask("evaluate", most=most)
        return found

    def memory(self) -> Mapping[str, Any]:
        """Bytes: ``resident``, and ``device`` or None."""
        found: Mapping[str, Any] = self._ask("memory")
        return found

    def _ask(self, verb: str, **payload: Any) -> Any:
        request, name = self.setup.request, f"train_{verb}"
        try:
            return answered(self.worker, answers.BACKEND, name, payload, request.timeout).value
        except WorkerFault as fault:
            if (error := fault.users_error) is not None:
                raise UsageError(f"{request.backend}: {error}") from None
            message = f"{request.backend} failed: {verb}: {fault.outcome.cause}"
            raise TrainingError(message, fault.traceback) from None
