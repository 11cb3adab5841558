"""How the worker of one backend is started."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.runtime.labels import backend_of

SERVICE = "harness.runtime.service:handler"
"""What answers the calls of a check, if nothing else is said."""
START_TIMEOUT = 300.0
"""Seconds that a start may take: a large framework on a slow disk is imported in minutes."""
VARIABLE = "HARNESS_START_TIMEOUT"
"""Environment variable with another number of them, for all commands."""


def usual_start_timeout() -> float:
    """Seconds that a start may take if nobody says otherwise.

    Raises:
        UsageError: the environment variable for it is not a positive number.
    """
    given = os.environ.get(VARIABLE, "") or START_TIMEOUT
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{VARIABLE} takes a positive number of seconds, found {given!r}")
    return seconds


@dataclass(frozen=True)
class Launch:
    """How to start the worker of one backend, or of a column of its own (``torch@2.6``).

    ``environment`` is added to the parent's. ``memory_limit`` is in resident bytes of the process
    and its descendants, and None is no limit. ``start_timeout`` is in seconds. ``service``
    (``module:function``) answers calls with the backend; ``handler`` in its place, and the backend
    is then not loaded. ``cores`` is how many of the processor's cores it may use, None for all.
    With ``deterministic`` the backend is to give the same bits for the same call, on any device.
    """

    backend: str
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_limit: int | None = None
    service: str = SERVICE
    handler: str | None = None
    cores: int | None = None
    deterministic: bool = False
    start_timeout: float = field(default_factory=usual_start_timeout)

    def command(self) -> list[str]:
        """The command line, but for the numbers of the descriptors."""
        command = guarded(
            self.python, "harness.worker.serve", ["--backend", backend_of(self.backend)]
        )
        if self.handler is None:
            command += ["--service", self.service]
        else:
            command += ["--handler", self.handler]
        if self.deterministic:
            command.append("--deterministic")
        return command if self.cores is None else [*command, "--cores", str(self.cores)]

    def variables(self) -> dict[str, str]:
        """The whole environment of the process."""
        # Unbuffered, in C as well: what was printed before a crash must be in the log, and what
        # a call has printed must be in the log of that call.
        return {
            **os.environ,
            "PYTHONFAULTHANDLER": "1",
            "PYTHONUNBUFFERED": "1",
            **self.environment,
        }


def guarded(python: str, module: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a guardian whose child runs ``module.main(arguments)``, but for the
    numbers of the descriptors."""
    # -P keeps the current folder off the import path: a torch.py there must not be imported.
    return [python, "-P", "-m", "harness.worker.guardian", str(os.getpid()), module, *arguments]


def thread_settings(count: int) -> dict[str, str]:
    """The variables from which numerical libraries take their number of threads."""
    names = ("OMP", "OPENBLAS", "MKL")
    found = {f"{name}_NUM_THREADS": str(count) for name in names}
    return {**found, "TF_NUM_INTRAOP_THREADS": str(count), "TF_NUM_INTEROP_THREADS": "1"}
