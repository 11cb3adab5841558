"""Shared code for tests of workers and processes: it starts, times and finds workers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.worker.launch import Launch
from harness.worker.worker import Outcome

FOLDER = str(Path(__file__).parents[1])
PATH = {"PYTHONPATH": os.pathsep.join(filter(None, [FOLDER, os.environ.get("PYTHONPATH")]))}
VERBS = "process_faults.verbs:handler"
MIB = 1 << 20


# A background job of a shell ignores Ctrl-C. All programs that it starts ignore it too, unless the
# signal handler is reset.
_HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.execv(sys.argv[1], sys.argv[1:])
"""


def allow_interrupts(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return a command that starts another command such that it receives Ctrl-C."""
    return [sys.executable, "-c", _HEARING, *map(os.fspath, command)]


def launch(name: str = "victim", handler: str = VERBS, **options: Any) -> Launch:
    environment = PATH | options.pop("environment", {})
    return Launch(name, handler=handler, environment=environment, **options)


def timed(call: Callable[[], Outcome]) -> tuple[Outcome, float]:
    started = time.monotonic()
    outcome = call()
    return outcome, time.monotonic() - started


def is_gone(pid: int) -> bool:
    """Return whether no process has this id, except a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def group_members(group: int) -> list[int]:
    """Return the running processes of a process group."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and not is_gone(pid := int(entry.name)):
            try:
                members += [pid] if os.getpgid(pid) == group else []
            except ProcessLookupError:
                continue
    return members


def marked(mark: str) -> list[int]:
    """Return the running processes whose environment or command line contains ``mark``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and not is_gone(pid := int(entry.name)):
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            found += [pid] if mark.encode() in text else []
    return found
