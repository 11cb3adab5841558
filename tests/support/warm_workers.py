"""Fast starts of workers (10 ms), for tests that do not test the start itself.

Most of a start is imports: 0.3 s of processor time for numpy, 2 s for torch, 6 s for TensorFlow. So
the second worker of a kind is forked from a process that has imported the framework. This worker
still has its own supervisor process, descriptors, folder and variables. It loads its backend
itself, and ends like any other worker. Workers of a framework are of one kind if their backend and
environment variables are equal. Workers of numpy and of the plugins of tests are of one kind if the
variables that numpy reads are equal.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.runtime.hookspecs import COMPILED_CODE
from harness.worker import process, supervisor
from harness.worker.posix_processes import TOKEN_VARIABLE
from harness.worker.serve import relevant_variables

# Folders of tests about processes, their starts, or time: their workers start normally.
COLD = ("cluster", "command", "environments", "fuzz", "timing", "worker")
FRAMEWORKS = {
    "numpy": "numpy",
    "torch": "torch",
    "jax": "jax.numpy",
    "keras": "tensorflow",
    "keras-jax": "jax.numpy",
    "keras-torch": "torch",
}
# Variables that may differ between workers of one kind.
CHANGING = ("PYTEST_CURRENT_TEST", TOKEN_VARIABLE, COMPILED_CODE)
# The largest number of processes to fork from; each may need half a gigabyte of memory.
MOST = 3

_parents: dict[object, Parent] = {}
_asked: Counter[object] = Counter()
_start_cold = process.Process._start
# What a process that forks workers of numpy is asked to import.
NUMPY = ("--backend", "numpy", "--service", "harness.runtime.service:handler")


class Forked:
    """A forked supervisor process, with the part of ``subprocess.Popen`` that Process uses."""

    returncode = None  # the supervisor itself reports how its worker has ended

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._waited = False

    def has_ended(self, timeout: float = 0.0) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return self._waited or bool(poll.poll(timeout * 1000))

    def wait(self, timeout: float) -> None:
        if not self.has_ended(timeout):
            raise subprocess.TimeoutExpired("a forked supervisor", timeout)
        if not self._waited:
            os.close(self._pidfd)
        self._waited = True

    def kill(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


class Parent:
    """A process to fork workers from; the process and its workers end when its connection ends."""

    def __init__(self, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        self._forked: list[Forked] = []
        self._owner = os.getpid()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), *arguments],
                env=variables,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def fork(
        self, command: Sequence[str], variables: Mapping[str, str], files: Sequence[int]
    ) -> Forked:
        """Fork a supervisor and its worker; ``files`` are its log, its socket and its report."""
        cores = sorted(os.sched_getaffinity(0))
        request = json.dumps([command, dict(variables), os.getcwd(), cores]).encode()
        socket.send_fds(self._connection, [request], files)
        started = Forked(int(self._connection.recv(64)))
        self._forked = [*(one for one in self._forked if not one.has_ended()), started]
        return started

    def is_busy(self) -> bool:
        """Return whether any worker that was forked from this process is running, or this process
        belongs to another one, of which the current process is a fork."""
        return self._owner != os.getpid() or not all(one.has_ended() for one in self._forked)

    def end(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


def install() -> None:
    """Make this process fork its workers if possible."""
    process.Process._start = _start  # type: ignore[assignment,method-assign]
    own = os.getpid()
    atexit.register(lambda: _end_all() if os.getpid() == own else None)


def _end_all() -> None:
    for parent in _parents.values():
        parent.end()


def start_numpy() -> None:
    """Start the process to fork workers of numpy from, also for forks of this process."""
    _numpy_parent(dict(os.environ))


def _start(
    self: process.Process,
    command: Sequence[str],
    environment: Mapping[str, str],
) -> Any:
    parent = _parent(command, environment)
    if parent is None:
        return _start_cold(self, command, environment)
    descriptors = self._ender.start_options["pass_fds"]
    started = parent.fork(command, environment, [self.log.fileno(), *descriptors])
    self._attach(started)  # type: ignore[arg-type]
    return started


def _parent(command: Sequence[str], environment: Mapping[str, str]) -> Parent | None:
    """Return the process to fork a worker from; None if the worker must start normally."""
    python, _, _, _, _, module, *arguments = command[:-4]
    backend = arguments[1]
    if (
        _room() in COLD
        or (python, module) != (sys.executable, "harness.worker.serve")
        or ("--cores" in arguments and len(os.sched_getaffinity(0)) > 1)
    ):
        return None
    if FRAMEWORKS.get(backend, "numpy") == "numpy":
        return None if _runs_at_start(environment) else _numpy_parent(environment)
    variables = {n: text for n, text in environment.items() if n not in CHANGING}
    kind = (os.getpid(), *arguments, frozenset(variables.items()))
    _asked[kind] += 1
    if _asked[kind] == 1 or kind in _parents:
        return _parents.get(kind)
    return _new_parent(kind, arguments, variables)


def _numpy_parent(environment: Mapping[str, str]) -> Parent | None:
    variables = {n: text for n, text in environment.items() if n != "PYTHONPATH"}
    at_import = relevant_variables(variables) | {
        n: text for n, text in variables.items() if n.startswith(("PYTHON", "HARNESS_SYSTEM"))
    }
    kind = frozenset(at_import.items())
    return _parents.get(kind) or _new_parent(kind, NUMPY, variables)


def _new_parent(
    kind: object, arguments: Sequence[str], variables: Mapping[str, str]
) -> Parent | None:
    """Start a process to fork workers from; return None if all that may run are busy."""
    if len(_parents) >= MOST:
        idle = next((other for other, parent in _parents.items() if not parent.is_busy()), None)
        if idle is None:
            return None
        _parents.pop(idle).end()
    _parents[kind] = Parent(arguments, variables)
    return _parents[kind]


def _runs_at_start(environment: Mapping[str, str]) -> bool:
    """Return whether a module of ``PYTHONPATH`` runs when Python starts."""
    return any(Path(folder, "sitecustomize.py").exists() for folder in _python_path(environment))


def _python_path(environment: Mapping[str, str]) -> list[str]:
    return [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]


def _room() -> str:
    """Return the folder in ``tests/`` of the test that is running."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").partition("tests/")[2].partition("/")[0]


def main() -> None:
    """Import the framework of a backend, and fork a supervisor for each request."""
    number, *arguments = sys.argv[1:]
    _, backend, option, answering, *_ = arguments
    connection = socket.socket(fileno=int(number))
    wanted = _wanted(backend, arguments)
    importlib.import_module(_framework(backend))
    importlib.import_module("harness.worker.serve")
    module = answering.partition(":")[0]
    if option == "--service" and module.startswith("harness."):
        importlib.import_module(module)
    # JAX warns about its threads, but it has not started any yet.
    warnings.filterwarnings("ignore", r"os\.fork\(\) was called")
    forked: list[int] = []
    while True:
        request, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
        if not request:
            return
        if not (pid := os.fork()):
            connection.close()
            _become(request, files, wanted)
            return
        for file in files:
            os.close(file)
        connection.send(b"%d" % pid)
        # Another process must not get the id of the last child before the child is registered.
        forked = [*(n for n in forked if not os.waitpid(n, os.WNOHANG)[0]), pid]


def _framework(backend: str) -> str:
    """Return the module to import for a backend. TensorFlow and torch cannot be in one process,
    see ``tests/conftest.py``; ``KERAS_BACKEND`` may give the backend ``keras`` another engine."""
    engine = os.environ.get("KERAS_BACKEND", "tensorflow") if backend == "keras" else ""
    return FRAMEWORKS.get(f"keras-{engine}", FRAMEWORKS[backend])


def _wanted(backend: str, arguments: Sequence[str]) -> Mapping[str, str]:
    """Return the variables that a backend needs; if they are not set, restart this program."""
    from harness.runtime import plugins

    if "--handler" in arguments:
        return {}
    wanted = plugins.environment(backend, "--deterministic" in arguments)
    if any(os.environ.get(name) != text for name, text in wanted.items()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **wanted})
    return wanted


def _become(request: bytes, files: Sequence[int], wanted: Mapping[str, str]) -> None:
    """Run the supervisor that a request describes, and its worker."""
    command, variables, folder, cores = json.loads(request)
    log, connection, report = files
    os.setsid()
    os.chdir(folder)
    os.sched_setaffinity(0, cores)
    os.environ.clear()
    os.environ.update({**variables, **wanted})
    sys.path[:0] = [path for path in _python_path(variables) if path not in sys.path]
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    numbers = ["--fd", str(connection), "--report", str(report)]
    sys.argv = [supervisor.__file__, str(os.getppid()), *command[5:-4], *numbers]
    supervisor.main()


if __name__ == "__main__":
    main()
