"""The training of a worker as typed calls, which :mod:`harness.training.service` answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from harness.errors import UsageError
from harness.program.serial import encoded
from harness.runtime.answers import Beginning
from harness.training.kept import TrainingError
from harness.training.request import Setup
from harness.training.service import PREFIX, TrainService
from harness.worker.answers import Forms
from harness.worker.remote import WorkerFault, answered, client
from harness.worker.worker import Worker


@dataclass(frozen=True)
class TrainRemote:
    """A training in a worker."""

    worker: Worker
    setup: Setup

    @cached_property
    def calls(self) -> TrainService:
        """The service in the worker. All calls raise :class:`UsageError` for what a backend cannot
        do, and :class:`TrainingError` for a call that fails."""
        return client(TrainService, self._ask, PREFIX)

    @cached_property
    def _forms(self) -> Forms:
        return Forms(TrainService, PREFIX)

    def begin(self, path: str) -> Beginning:
        """Begin a training on a path, still without parameters."""
        setup, request = self.setup, self.setup.request
        return self.calls.begin(
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

    def _ask(self, verb: str, **payload: Any) -> Any:
        request = self.setup.request
        try:
            return answered(self.worker, self._forms, verb, payload, request.timeout).value
        except WorkerFault as fault:
            if (error := fault.users_error) is not None:
                raise UsageError(f"{request.backend}: {error}") from None
            name = verb.removeprefix(PREFIX)
            message = f"{request.backend} failed: {name}: {fault.outcome.cause}"
            raise TrainingError(message, fault.traceback) from None
