"""Runs of arbitrary programs, such as a user's script, within limits of time and memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from harness.files.system import POSIX
from harness.worker.ending import replace_process, worker_command
from harness.worker.exchange import TICK, LostWorker, watch
from harness.worker.process import Process

# The exit code of shells for a command that cannot run.
CANNOT_RUN = 127


@dataclass(frozen=True)
class ProgramEnd:
    """The result of a program that :func:`run_program` has run.

    ``code`` is its exit code. If a limit ended the program, ``cause`` names the limit. ``printed``
    is the last 64 KiB of its output.
    """

    code: int | None
    printed: str
    cause: str = ""


def run_program(
    command: Sequence[str], environment: Mapping[str, str], timeout: float, memory: int | None
) -> ProgramEnd:
    """Run a program until it ends, or until it exceeds its time (``timeout``, in seconds) or its
    memory (``memory``, the resident bytes of the program and its descendants; None is no limit).

    All processes that the program has started end with it. They also end if this process ends.

    Raises:
        OSError: no process can be started.
    """
    process, cause = Process(worker_command(sys.executable, __name__, command), environment), ""
    try:
        _wait(process, timeout, memory)
    except LostWorker as lost:
        cause = lost.cause
    finally:
        code = process.end()
        printed = process.log.read()
        process.log.close()
    return ProgramEnd(None if cause else code, printed, cause)


def _wait(process: Process, timeout: float, memory: int | None) -> None:
    deadline = time.monotonic() + timeout
    while not process.has_ended(min(TICK, max(0.0, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            raise LostWorker("timeout", f"it was ended after {timeout:.1f} s")
        watch(process, memory)


def main(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by a program. ``arguments`` are its command line, followed by ``--fd
    N``. This socket of the supervisor is closed first, because the program does not use it."""
    *command, _, descriptor = arguments
    if POSIX:
        os.close(int(descriptor))
    try:
        replace_process(command, os.environ)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", flush=True)
        os._exit(CANNOT_RUN)


if __name__ == "__main__":
    main(sys.argv[1:])
