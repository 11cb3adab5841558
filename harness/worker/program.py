"""Run any program as a worker is run: under a guardian, with limits of time, memory and output.

:func:`main` is what the guardian's child runs: it becomes the program. Linux only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from harness.worker.exchange import TICK, LostWorker, watch
from harness.worker.launch import guarded
from harness.worker.process import Process

# The exit code of a shell for a command that cannot be run.
NOT_RUN = 127


@dataclass(frozen=True)
class Ended:
    """The end of a program: its exit code, or the ``cause`` for which it was ended, and the last
    64 KiB of what it printed."""

    code: int | None
    printed: str
    cause: str = ""


def run(
    command: Sequence[str], environment: Mapping[str, str], timeout: float, memory: int
) -> Ended:
    """Run a program to its end, or until it takes longer or more memory than it may.

    All that it has started ends with it, and also with this process. ``timeout`` is in seconds,
    ``memory`` in resident bytes of the program and its descendants.

    Raises:
        OSError: no process can be started.
    """
    process, cause = Process(guarded(sys.executable, __name__, command), environment), ""
    try:
        _wait(process, timeout, memory)
    except LostWorker as lost:
        cause = lost.cause
    finally:
        code = process.end()
        printed, _ = process.log.read()
        process.log.close()
    return Ended(None if cause else code, printed, cause)


def _wait(process: Process, timeout: float, memory: int) -> None:
    deadline = time.monotonic() + timeout
    while not process.has_ended(min(TICK, max(0.0, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            raise LostWorker("timeout", f"no answer in {timeout:.1f} s")
        watch(process, memory)


def main(arguments: Sequence[str]) -> NoReturn:
    """Become the program; the last two arguments are ``--fd N``, a socket that it does not use."""
    *command, _, descriptor = arguments
    os.close(int(descriptor))
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", flush=True)
        os._exit(NOT_RUN)
