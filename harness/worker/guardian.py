"""The supervisor process ("guardian") of a worker, which ends all processes that the worker starts.

It is started as ``python -m harness.worker.guardian PARENT MODULE ARGUMENTS --report N`` and forks
before any large import. The child becomes the worker by running ``MODULE.main(ARGUMENTS)``; the
supervisor only waits. The supervisor is a *subreaper*: it becomes the parent of every descendant
whose own parent has ended. Even a daemon (two forks and a setsid) therefore cannot escape. The
supervisor kills all descendants when the worker ends, or when it gets a signal to end. The kernel
sends such a signal when the parent ends.

It writes two lines to the file descriptor N. The first is the worker's process number, at the
start. The second is the worker's exit status, when all processes have ended. If the second line is
missing, the supervisor itself was killed. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TITLE = b"harness-guardian"
# Seconds before a killed descendant is checked again.
_PAUSE = 0.02


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals to send to a supervisor so that it ends all its processes. SIGCONT is one
    of them, because a supervisor may have been stopped (SIGSTOP)."""
    return signal.SIGTERM, signal.SIGCONT


def main() -> None:
    """Fork this process into supervisor and worker. The supervisor never returns from this
    function."""
    parent, module, *arguments, _, report = sys.argv[1:]
    _signal_at_end_of(int(parent), signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # The parent may ignore SIGCHLD, and a child process inherits that. Ended children would then
    # vanish without a signal.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    guardian, worker = os.getpid(), os.fork()
    if worker:
        _supervise(worker, int(report))
    os.close(int(report))
    os.setsid()
    _signal_at_end_of(guardian, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    importlib.import_module(module).main(arguments)


def children(pid: int) -> list[int]:
    """Return the process ids of the processes whose parent is ``pid``. If processes end during the
    call, some children may be missing."""
    pids: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            pids += map(int, file.read_text().split())
    return pids


def is_supervisor(pid: int) -> bool:
    """Return whether the process ``pid`` is a supervisor. If it is, a signal suffices to end it and
    its worker."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == _TITLE
    return False


def _signal_at_end_of(parent: int, number: signal.Signals) -> None:
    """Make the kernel send the signal ``number`` to this process when its parent ends. More
    precisely, the signal is sent when the thread of the process ``parent`` ends that has started
    this process."""
    _prctl(_PR_SET_PDEATHSIG, number)
    # If the parent ended before the prctl, the signal never comes.
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _supervise(worker: int, report: int) -> None:
    """Wait until the worker ends or a signal comes; then end all processes of the worker, and exit.
    ``report`` is the file descriptor for the worker's process id and exit status."""
    # Close this copy of the worker's socket, because the parent waits for the end of the stream.
    os.closerange(3, report)
    os.closerange(report + 1, 256)
    _take_title()
    _report_number(report, worker)
    status: int | None = None
    ending = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    while status is None:
        # All signals are blocked, so none is lost between two waits.
        if signal.sigwait({*ending, signal.SIGCHLD}) in ending:
            break
        status = _reap(worker)
    _report_number(report, _end_all(worker, status))
    os._exit(0)


def _report_number(report: int, number: int) -> None:
    with contextlib.suppress(OSError):  # no reader is left
        os.write(report, b"%d\n" % number)


def _end_all(worker: int, status: int | None) -> int:
    """Kill all descendants, and wait until they have ended; return the worker's exit status.
    ``status`` is that exit status if the worker has already ended, else None."""
    refused: set[int] = set()
    while True:
        remaining = set(children(os.getpid())) - refused
        for child in remaining:
            if not _kill(child):
                refused.add(child)
        new_status = _reap(worker)
        status = new_status if status is None else status
        if status is not None and (_has_no_children() or (refused and not remaining)):
            return status
        signal.sigtimedwait({signal.SIGCHLD}, _PAUSE)


def _kill(child: int) -> bool:
    """Kill a child and its process group; return False if the system does not allow that.

    Only direct children are killed, because the kernel cannot reuse their process ids before the
    supervisor has waited for them. Descendants whose parent has ended become direct children, and
    are killed later.
    """
    try:
        group = os.getpgid(child)
        if group != os.getpgid(0):
            os.killpg(group, signal.SIGKILL)
        os.kill(child, signal.SIGKILL)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True


def _reap(worker: int) -> int | None:
    """Remove all ended children from the process table (wait for them). If the worker is one of
    them, return its exit status."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == worker:
                status = ended[1]
    return status


def _has_no_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _take_title() -> None:
    """Change the name of this process in process lists, which show it as a copy of the worker
    otherwise."""
    with contextlib.suppress(OSError):  # /proc may be read-only
        Path("/proc/self/comm").write_bytes(_TITLE[:15])
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        ctypes.memmove(start, _TITLE.ljust(end - start, b"\0")[: end - start], end - start)


if __name__ == "__main__":
    main()
