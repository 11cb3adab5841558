"""The settings with which a backend's worker starts, and its command line."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UsageError
from harness.runtime.hookspecs import COMPILED_CODE
from harness.runtime.labels import backend_of
from harness.worker.ending import worker_command

SERVICE = "harness.runtime.service:handler"
"""The default service, which answers the calls of ``harness check``."""
START_TIMEOUT = 300.0
"""The timeout of a start in seconds. Importing a framework from a slow disk takes minutes."""
VARIABLE = "HARNESS_START_TIMEOUT"
"""The environment variable that overrides :data:`START_TIMEOUT` for all commands."""


def usual_start_timeout() -> float:
    """Return the default timeout of a worker's start, in seconds.

    Raises:
        UsageError: the environment variable :data:`VARIABLE` is not a positive number.
    """
    value = os.environ.get(VARIABLE, "") or START_TIMEOUT
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{VARIABLE} takes a positive number of seconds, found {value!r}")
    return seconds


@dataclass(frozen=True)
class Launch:
    """The settings with which the worker of a backend starts. ``backend`` may have a label
    (``torch@2.6``).

    - ``python`` is the interpreter that runs the worker.
    - ``environment`` is added to the parent's environment variables.
    - ``memory_limit`` limits the resident bytes of the process and its descendants; None means no
      limit.
    - ``service`` (``module:function``) names a function that gets the loaded backend and returns
      the function that answers calls. If ``handler`` is set, it is used instead: it names a
      function that gets only the backend's name.
    - ``cores`` is the number of processor cores that the worker may use. None means all, beside
      other workers: then numpy's products have one thread, and idle threads of OpenMP do not spin.
    - ``deterministic`` makes the backend return the same bits in every call, on any device.
    - ``start_timeout`` is in seconds.
    - ``compiled_code`` is the folder in which the framework may keep compiled code.
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
    compiled_code: Path | None = None

    def command(self) -> list[str]:
        """Return the command line that starts the worker, without the numbers of file
        descriptors."""
        command = worker_command(
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
        """Return all environment variables with which the process starts."""
        # Workers run beside each other, and numpy's products are small: more threads would wait for
        # each other. torch keeps its threads, because with one thread oneDNN#6035 crashes most
        # gradients of resnet on CPUs without AVX-512, but an idle thread must not use a core. The
        # user's own settings win. Output is unbuffered, so that the log has all of it even after a
        # crash.
        beside = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        return {
            **(beside if self.cores is None else {}),
            **os.environ,
            "PYTHONFAULTHANDLER": "1",
            "PYTHONUNBUFFERED": "1",
            **({COMPILED_CODE: str(self.compiled_code)} if self.compiled_code else {}),
            **self.environment,
        }


def thread_settings(count: int) -> dict[str, str]:
    """Return the environment variables that make numerical libraries use ``count`` threads."""
    names = ("OMP", "OPENBLAS", "MKL")
    variables = {f"{name}_NUM_THREADS": str(count) for name in names}
    return {**variables, "TF_NUM_INTRAOP_THREADS": str(count), "TF_NUM_INTEROP_THREADS": "1"}
