"""A process that runs a user's own model outside the cells of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from harness.checking.own_model.against import Against
from harness.checking.own_model.run import FORMS
from harness.errors import CouldNotRun, UsageError, unknown
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

    def choose_paths(self, names: Sequence[str], others: Sequence[str] = ()) -> Against:
        """Return the model with the chosen paths; ``all`` stands for each path that can run here.
        Names in ``others`` are paths of backends, which the model may lack.

        Raises:
            UsageError: a path is unknown, or it cannot run here.
            CouldNotRun: the process failed.
        """
        offered: Mapping[str, str] = self.call("paths")
        for name in names:
            if name not in (*offered, *others, "all"):
                raise unknown("path", name, tuple(dict.fromkeys((*offered, *others, "all"))))
            if reason := offered.get(name, ""):
                raise UsageError(f"{self.against} cannot run on the path {name}: {reason}")
        every = "all" in names
        lacking = {name: why for name, why in offered.items() if every and why}
        paths = [n for n in offered if n not in lacking and (every or n in names)]
        return replace(self.against, paths=tuple(paths), lacking=lacking)

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
