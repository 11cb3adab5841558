"""The supervisor process of a worker, which ends all processes that the worker starts.

It is started as ``python -m harness.worker.supervisor PARENT MODULE ARGUMENTS --report N``, and
forks before any large import. The child becomes the worker by running ``MODULE.main(ARGUMENTS)``;
the supervisor only waits. On Linux the supervisor is a *subreaper*: it becomes the parent of every
descendant whose own parent has ended. Even a daemon (two forks and a setsid) therefore cannot
escape. The supervisor kills all descendants when the worker ends, when it gets a signal to end, or
when its parent ends.

It writes two lines to the file descriptor N. The first is the worker's process number, at the
start. The second is the worker's exit status, when all processes have ended. If the second line is
missing, the supervisor itself was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from harness.files.system import POSIX
from harness.worker import posix_processes

assert POSIX, "Windows has no supervisors, but Job Objects"


def main() -> None:
    """Fork this process into supervisor and worker. The supervisor never returns from this
    function."""
    parent, module, *arguments, _, report = sys.argv[1:]
    posix_processes.end_with(int(parent), signal.SIGTERM)
    posix_processes.adopt_orphans()
    # The parent may ignore SIGCHLD, and a child process inherits that. Ended children would then
    # vanish without a signal.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    own_pid, worker = os.getpid(), os.fork()
    if worker:
        _supervise(worker, int(report), int(parent))
    os.close(int(report))
    os.setsid()
    posix_processes.end_with(own_pid, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    posix_processes.become(module, arguments)


def _supervise(worker: int, report: int, parent: int) -> None:
    """Wait until the worker or the process ``parent`` ends, or a signal comes; then end all
    processes of the worker, and exit. ``report`` is the file descriptor for the worker's process id
    and exit status."""
    # Close this copy of the worker's socket, because the parent waits for the end of the stream.
    os.closerange(3, report)
    os.closerange(report + 1, 256)
    posix_processes.take_title()
    _report_number(report, worker)
    status: int | None = None
    numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    while status is None and posix_processes.wait_for_signal(numbers, parent) not in numbers:
        status, _ = _reap(worker)
    _report_number(report, _end_all(worker, status))
    os._exit(0)


def _report_number(report: int, number: int) -> None:
    with contextlib.suppress(OSError):  # no reader is left
        os.write(report, b"%d\n" % number)


def _end_all(worker: int, status: int | None) -> int:
    """Kill all processes of the worker, and wait until they have ended; return the worker's exit
    status. ``status`` is that exit status if the worker has already ended, else None."""
    refused: set[int] = set()
    while True:
        for pid in posix_processes.doomed_processes() - refused:
            if not _kill(pid):
                refused.add(pid)
        new_status, childless = _reap(worker)
        status = new_status if status is None else status
        alone = childless or refused
        if status is not None and alone and not posix_processes.doomed_processes() - refused:
            return status
        posix_processes.pause_for_child()


def _kill(pid: int) -> bool:
    """Kill a process and its process group; return False if the system does not allow that."""
    try:
        group = os.getpgid(pid)
        if group != os.getpgid(0):
            os.killpg(group, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True


def _reap(worker: int) -> tuple[int | None, bool]:
    """Remove all ended children from the process table (wait for them). Return the worker's exit
    status if the worker is one of them, and whether no child is left."""
    status = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == worker:
                status = ended[1]
    except ChildProcessError:
        return status, True
    return status, False


if __name__ == "__main__":
    main()
