"""A process that runs a user's own model outside the cells of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Self

from harness.checking.own_model.against import Against
from harness.checking.own_model.run import FORMS
from harness.errors import CouldNotRun, UsageError
from harness.runtime.labels import backend_of
from harness.worker.launch import Launch
from harness.worker.remote import Remote, WorkerFault
from harness.worker.worker import Worker


class ModelProcess:
    """The process of a user's model. It ends when the ``with`` block of this context manager
    ends."""

    def __init__(
        self,
        against: Against,
        python: str | None,
        timeout: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        backend = backend_of(against.column)
        self.against = against
        launch = Launch(
            backend,
            python=python or sys.executable,
            environment=environment or {},
            **against.service,
        )
        self.worker = Worker(launch)
        self.remote = Remote(self.worker, timeout, forms=FORMS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.close()

    def call(self, verb: str, **arguments: Any) -> Any:
        """Return the answer of a call about the model.

        Raises:
            UsageError: the user's model or options are wrong.
            CouldNotRun: the process failed.
        """
        try:
            return self.remote.call(verb, **arguments)
        except WorkerFault as fault:
            if (message := fault.users_error) is not None:
                raise UsageError(message) from None
            raise CouldNotRun(f"{self.against}: {fault.outcome.cause}") from None
