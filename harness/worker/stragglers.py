"""Processes that outlived their worker and its guardian, found by a variable of their environment.

A guardian ends all that its worker has started; this is for when the guardian itself was killed.
One that is still there is told to do its work, and not killed in the middle of it: it finds what
has emptied its environment, too.
Every worker is given a token, which what it starts inherits and what is forked cannot lose: the
namespace of the process numbers, the harness process with the time at which that was started, and
a number of the worker. Linux only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.worker.guardian import ending_signals, is_guardian

VARIABLE = "HARNESS_WORKER"

_SECONDS = 1.0
_numbers = itertools.count()


def new_token() -> str:
    """A token for a worker of this process."""
    return f"{_namespace()} {os.getpid()} {_started(os.getpid())} {next(_numbers)}"


def end_holders(token: str) -> None:
    """Kill every process that holds this token, again and again until none is left."""
    _end(lambda found: found == token)


def end_abandoned() -> None:
    """Kill what workers of harness processes have left that are no longer there themselves."""
    _end(_is_abandoned)


def _end(condemned: Callable[[str], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while [pid for pid in _processes() if _kill(pid, condemned)] and time.monotonic() < end:
        time.sleep(0.01)


def _kill(pid: int, condemned: Callable[[str], bool]) -> bool:
    """Kill the process ``pid`` if its token is condemned, or tell it to end if it is a guardian;
    return whether it was alive."""
    if not condemned(_token_of(pid)):
        return False
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            # Looked at again: the number may have gone to another process before it was held.
            if condemned(_token_of(pid)):
                for number in ending_signals() if is_guardian(pid) else (signal.SIGKILL,):
                    signal.pidfd_send_signal(pidfd, number)
                return True
        finally:
            os.close(pidfd)
    return False


def _is_abandoned(token: str) -> bool:
    namespace, _, rest = token.partition(" ")
    pid, _, rest = rest.partition(" ")
    started, _, _ = rest.partition(" ")
    # Of another namespace (a container's) the numbers mean other processes than here.
    if namespace != _namespace() or not pid.isdecimal():
        return False
    return _started(int(pid)) != started


def _processes() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())


def _token_of(pid: int) -> str:
    """The token of a process, empty where it has none, or has ended, or is another's."""
    prefix = VARIABLE.encode() + b"="
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(prefix):
                return entry[len(prefix) :].decode("utf-8", "replace")
    return ""


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty once it has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
