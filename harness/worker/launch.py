"""Start settings and command line of a backend's worker."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.runtime.labels import backend_of

SERVICE = "harness.runtime.service:handler"
"""The default service, which answers the calls of a check."""
START_TIMEOUT = 300.0
"""Seconds that a start may take: importing a large framework from a slow disk takes minutes."""
VARIABLE = "HARNESS_START_TIMEOUT"
"""Environment variable that replaces :data:`START_TIMEOUT` for all commands."""


def usual_start_timeout() -> float:
    """Return the default seconds that a start may take.

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
    """Start settings of the worker of one backend, or of a named column (``torch@2.6``).

    - ``environment`` is added to the parent's.
    - ``memory_limit`` is in resident bytes of the process and its descendants; None is no limit.
    - ``service`` (``module:function``) answers calls with the loaded backend; ``handler``, if
      given, answers them without loading the backend.
    - ``cores`` is the number of processor cores that it may use, None for all.
    - ``deterministic`` asks the backend for the same bits at every call, on any device.
    - ``start_timeout`` is in seconds.
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
        """Return the command line without the numbers of the descriptors."""
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
        """Return the whole environment of the process."""
        # Unbuffered, so that the log has all output of a call, also before a crash.
        return {
            **os.environ,
            "PYTHONFAULTHANDLER": "1",
            "PYTHONUNBUFFERED": "1",
            **self.environment,
        }


def guarded(python: str, module: str, arguments: Sequence[str]) -> list[str]:
    """Return a guardian's command line that runs ``module.main``, without the descriptors."""
    # -P keeps the current folder off the import path, so that a torch.py there is not imported.
    return [python, "-P", "-m", "harness.worker.guardian", str(os.getpid()), module, *arguments]


def thread_settings(count: int) -> dict[str, str]:
    """Return the variables that set the number of threads of numerical libraries."""
    names = ("OMP", "OPENBLAS", "MKL")
    found = {f"{name}_NUM_THREADS": str(count) for name in names}
    return {**found, "TF_NUM_INTRAOP_THREADS": str(count), "TF_NUM_INTEROP_THREADS": "1"}
