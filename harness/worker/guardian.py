"""The process between the harness and a worker: whatever the worker starts ends with it.

Started as ``python -m harness.worker.guardian PARENT MODULE ARGUMENTS --report N``. It forks before
anything large is imported; the child becomes the worker by running ``MODULE.main(ARGUMENTS)``, and
the guardian, which does nothing else, waits. As a *subreaper* it inherits every descendant whose
own parent has ended, so that a daemon (two forks and a setsid) cannot leave it. It kills all of
them when the worker ends, when it is told to by a signal, and when its parent ends, however that
happens: the kernel tells it.

To the descriptor N it writes one line when the worker runs, its process number, and one when
nothing is left, the worker's exit status; without the second line it was killed itself. Linux only.
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
# How long a descendant that was killed may take until it is looked at again, in seconds.
_PAUSE = 0.02


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that tell a guardian to end all, also if it is stopped."""
    return signal.SIGTERM, signal.SIGCONT


def main() -> None:
    """Become guardian and worker; only the worker returns."""
    parent, module, *arguments, _, report = sys.argv[1:]
    _hear_of_the_end_of(int(parent), signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # A parent that ignores SIGCHLD would have its children's children vanish unseen.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    guardian, worker = os.getpid(), os.fork()
    if worker:
        _guard(worker, int(report))
    os.close(int(report))
    os.setsid()
    _hear_of_the_end_of(guardian, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    importlib.import_module(module).main(arguments)


def children(pid: int) -> list[int]:
    """The processes whose parent is ``pid``; it may miss some while others end."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def is_guardian(pid: int) -> bool:
    """Whether a process is a guardian, which sees to the rest by itself once it is told."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == _TITLE
    return False


def _hear_of_the_end_of(parent: int, number: signal.Signals) -> None:
    """Have the kernel send ``number`` to this process when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, number)
    # The parent may have ended before the line above: then no signal will ever come.
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _guard(worker: int, report: int) -> None:
    """Wait for the end of the worker, or for being told to end it; then end all, and leave."""
    # The worker's socket must be its own: the parent waits for the end of the stream.
    os.closerange(3, report)
    os.closerange(report + 1, 256)
    _take_title()
    _tell(report, worker)
    status: int | None = None
    ending = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    while status is None:
        # All signals are blocked, so none is lost between one wait and the next.
        if signal.sigwait({*ending, signal.SIGCHLD}) in ending:
            break
        status = _reap(worker)
    _tell(report, _end_all(worker, status))
    os._exit(0)


def _tell(report: int, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(report, b"%d\n" % number)


def _end_all(worker: int, status: int | None) -> int:
    """Kill all descendants, as often as it takes until none is left; the worker's exit status."""
    refused: set[int] = set()
    while True:
        left = set(children(os.getpid())) - refused
        for child in left:
            if not _kill(child):
                refused.add(child)
        found = _reap(worker)
        status = found if status is None else status
        if status is not None and (_childless() or (refused and not left)):
            return status
        signal.sigtimedwait({signal.SIGCHLD}, _PAUSE)


def _kill(child: int) -> bool:
    """Kill a child and its whole group, at one stroke; False if this is not allowed.

    Only children are killed, never their children: until a child is waited for, no other process
    can have its number. What it leaves behind becomes a child in its turn.
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
    """Wait for all children that have ended; the status of the worker if it is among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == worker:
                status = found[1]
    return status


def _childless() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _take_title() -> None:
    """Show in lists of processes as what it is: by its command line it looks like a worker."""
    with contextlib.suppress(OSError):  # where /proc is read-only it stays unnamed
        Path("/proc/self/comm").write_bytes(_TITLE[:15])
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        ctypes.memmove(start, _TITLE.ljust(end - start, b"\0")[: end - start], end - start)


if __name__ == "__main__":
    main()
