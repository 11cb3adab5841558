"""Commands ``harness`` and ``pytest``, each run in a fork of a process that has imported it.

Imports take half a second of processor time per command. A forked command has its own arguments,
folder, variables and output. Its workers of numpy are forked too (``warm_workers.py``). Tests of
how a process starts cannot use it: ``PYTHON*`` variables except ``PYTHONPATH`` have no effect.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

MODULES = {
    "harness": ("harness.commands", "harness.checking.console", "harness.report.console"),
    "pytest": ("pytest", "harness.checking.console"),
}


def run(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    program: str = "harness",
) -> subprocess.CompletedProcess[str]:
    """Run a program of :data:`MODULES` with arguments; return its exit code and output.

    Raises:
        subprocess.TimeoutExpired: the command took longer than ``timeout`` seconds.
    """
    connection = _parent(os.getpid(), program)
    request = [*map(str, arguments)], os.fspath(cwd or os.getcwd()), dict(env or os.environ)
    with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
        files = [output.fileno(), errors.fileno()]
        socket.send_fds(connection, [json.dumps(request).encode()], files)
        pid = int(connection.recv(64))
        if not select.select([connection], [], [], timeout)[0]:
            os.kill(pid, 9)
            connection.recv(64)
            raise subprocess.TimeoutExpired([program, *arguments], timeout)
        code = int(connection.recv(64))
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess([program, *arguments], code, *texts)


@cache
def _parent(pid: int, program: str) -> socket.socket:
    """Return a connection to a process that forks a program; the process ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        command = [sys.executable, "-P", __file__, program, str(number)]
        parent = subprocess.Popen(command, pass_fds=[number], stdin=subprocess.DEVNULL)

    def end() -> None:
        ours.close()
        parent.kill()
        parent.wait()

    atexit.register(end)
    return ours


def main() -> None:
    """Import a program, and fork it for each request."""
    program, number = sys.argv[1:]
    connection = socket.socket(fileno=int(number))
    for name in MODULES[program]:
        importlib.import_module(name)
    sys.path.insert(0, str(Path(__file__).parent))
    import warm_workers

    del sys.path[0]  # the commands are run without the modules of tests
    warm_workers.install()
    warm_workers.start_numpy()
    while True:
        request, files, *_ = socket.recv_fds(connection, 1 << 20, 2)
        if not request:
            return
        if not (pid := os.fork()):
            connection.close()
            _become(program, request, files)
        for file in files:
            os.close(file)
        connection.send(b"%d" % pid)
        connection.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _become(program: str, request: bytes, files: Sequence[int]) -> None:
    """Run the program with the arguments, folder and variables of a request."""
    arguments, folder, variables = json.loads(request)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path]
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
        os.close(file)
    sys.argv = [program, *arguments]
    if program == "pytest":
        import pytest

        sys.path.insert(0, folder)
        sys.exit(pytest.console_main())
    from harness import cli

    cli.main()


if __name__ == "__main__":
    main()
