"""The end of processes on POSIX systems: find, watch and kill the processes of a worker.

Linux has the strongest means: the kernel signals the end of a parent, gives orphans to the
supervisor, and names processes by descriptors (pidfd) whose number is never reused. Other POSIX
systems poll, and find processes by their parents, process groups and environment variables.

Every worker gets a token in an environment variable, which its processes inherit. The token holds
the namespace of process numbers, the number and start time of the harness process, and the number
of the worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.files import system
from harness.files.system import POSIX

assert POSIX, "Windows has no supervisors, but Job Objects"

TOKEN_VARIABLE = "HARNESS_WORKER"
PAUSE = 0.02
"""Seconds between two looks at processes that must end."""
_END_SECONDS = 1.0
_REAP_SECONDS = 1.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TITLE = b"harness-guardian"
# The signals to send to a supervisor so that it ends all its processes. SIGCONT is one of them,
# because a supervisor may have been stopped (SIGSTOP).
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGCONT)
_numbers = itertools.count()


def end_soon(pid: int) -> None:
    """Send signals to the supervisor ``pid``, so that it ends all its processes. It also works if
    the supervisor is stopped."""
    with contextlib.suppress(ProcessLookupError):
        for number in ENDING_SIGNALS:
            os.kill(pid, number)


class Supervisor:
    """The supervisor of a worker (:mod:`harness.worker.supervisor`), seen from the harness."""

    def __init__(self) -> None:
        self.connection, self._theirs = socket.socketpair()
        self.connection.setblocking(False)
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self._reports, self._writing = os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)
        self._read = b""
        self._token = new_token()
        descriptors = [self._theirs.fileno(), writing]
        self.arguments: Sequence[str] = [
            *("--fd", str(descriptors[0])),
            *("--report", str(descriptors[1])),
        ]
        self.variables: Mapping[str, str] = {TOKEN_VARIABLE: self._token}
        self.start_options: Mapping[str, Any] = {
            "pass_fds": descriptors,
            "start_new_session": True,
        }

    def attach(self, started: subprocess.Popen[bytes]) -> None:
        self._popen = started
        self._theirs.close()
        self._writing.close()
        self._watch = _open_watch(started.pid, self._reports.fileno())

    def has_ended(self, wait: float = 0.0) -> bool:
        poll = select.poll()
        poll.register(*self._watch)
        return bool(poll.poll(wait * 1000))

    def wait(self, seconds: float, writing: bool = False) -> tuple[bool, bool, bool]:
        poll = select.poll()
        poll.register(*self._watch)
        poll.register(self.connection, select.POLLIN | (select.POLLOUT if writing else 0))
        ready = dict(poll.poll(seconds * 1000))
        events = ready.get(self.connection.fileno(), 0)
        readable, writable = bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)
        return readable, writable, self._watch[0] in ready

    @property
    def pid(self) -> int:
        return (self._read_reports() or [self._popen.pid])[0]

    def members(self) -> set[int]:
        return members(self._popen.pid, self._token)

    def end(self) -> int | None:
        end_soon(self._popen.pid)
        if not self.has_ended(_REAP_SECONDS) and not self._read_reports():
            self._popen.kill()  # the supervisor hangs before it starts the worker
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_REAP_SECONDS)
        code = self._popen.returncode
        match self._read_reports():
            case [_, status]:
                code = os.waitstatus_to_exitcode(status)
            case _:  # the supervisor was killed before it finished
                end_holders(self._token)
        os.close(self._watch[0])
        self.abandon()
        return code

    def abandon(self) -> None:
        for one in (self._theirs, self._writing, self._reports, self.connection):
            one.close()

    def _read_reports(self) -> list[int]:
        """Return the numbers that the supervisor has written so far: none, the worker's process id,
        or this id and the worker's exit status."""
        if not self._reports.closed:
            self._read += self._reports.read(64) or b""
        return [int(line) for line in self._read.split(b"\n")[:-1]]


# Functions that a supervisor or a worker calls for itself.


def end_with(parent: int, number: signal.Signals) -> None:
    """Make the kernel send the signal ``number`` to this process when its parent ends. More
    precisely, the signal is sent when the thread of the process ``parent`` ends that has started
    this process.

    On systems other than Linux the supervisor polls instead (:func:`wait_for_signal`).
    """
    if system.LINUX:
        _prctl(_PR_SET_PDEATHSIG, number)
    # If the parent ended before the prctl, the signal never comes.
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent has ended; Linux only."""
    if system.LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def become(module: str, arguments: Sequence[str]) -> None:
    """Run ``main(arguments)`` of a module in this process, which is a fork.

    On systems other than Linux the process first starts Python again, because libraries such as
    Apple's do not work in a fork.
    """
    if system.LINUX:
        importlib.import_module(module).main(arguments)
    else:
        os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])


def wait_for_signal(ending: set[signal.Signals], parent: int) -> int:
    """Wait for one of the signals ``ending``, or until a child may have ended (SIGCHLD). All
    signals are blocked, so none is lost between two waits.

    On systems other than Linux the end of ``parent`` counts as SIGTERM.
    """
    if system.LINUX:
        return signal.sigwait({*ending, signal.SIGCHLD})
    time.sleep(PAUSE)
    if os.getppid() != parent:
        return signal.SIGTERM
    return min(signal.sigpending() & ending, default=signal.SIGCHLD)


def pause_for_child() -> None:
    """Wait until a child ends, but at most :data:`PAUSE` seconds."""
    if system.LINUX:
        signal.sigtimedwait({signal.SIGCHLD}, PAUSE)
    else:
        time.sleep(PAUSE)


def doomed_processes() -> set[int]:
    """Return the ids of the processes that a supervisor must kill next.

    On Linux they are its children. Only these are killed, because the kernel cannot reuse their ids
    before the supervisor has waited for them. Descendants whose parent has ended become children,
    and are killed later.
    """
    if system.LINUX:
        return set(children(os.getpid()))
    return members(os.getpid(), os.environ[TOKEN_VARIABLE])


def take_title() -> None:
    """Change the name of this process in process lists, which show it as a copy of the worker
    otherwise; Linux only."""
    if not system.LINUX:
        return
    with contextlib.suppress(OSError):  # /proc may be read-only
        Path("/proc/self/comm").write_bytes(_TITLE[:15])
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        ctypes.memmove(start, _TITLE.ljust(end - start, b"\0")[: end - start], end - start)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# Functions that find processes.


def _open_watch(pid: int, report: int) -> tuple[int, int]:
    """Return a new file descriptor, and the event of ``select.poll`` that it has when the
    supervisor ``pid`` has ended.

    ``report`` is a pipe that only the supervisor writes, so its end closes the pipe.
    """
    if system.LINUX:
        return os.pidfd_open(pid), select.POLLIN
    return os.dup(report), select.POLLHUP


def children(pid: int) -> list[int]:
    """Return the process ids of the processes whose parent is ``pid``. If processes end during the
    call, some children may be missing."""
    pids: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            pids += map(int, file.read_text().split())
    return pids


def members(parent: int, token: str) -> set[int]:
    """Return the ids of a worker and of all processes that it has started. ``parent`` is the id of
    the worker's supervisor.

    On systems other than Linux, a daemon is found only by its ``token``.
    """
    if system.LINUX:
        return {below for child in children(parent) for below in (child, *members(child, token))}
    import psutil

    holders = {pid for pid in _processes() if _token_of(pid) == token}
    with contextlib.suppress(psutil.Error):
        holders |= {process.pid for process in psutil.Process(parent).children(recursive=True)}
    return {pid for pid in holders - {parent} if _start_time(pid)}


def new_token() -> str:
    """Return a new token: a text that no other worker has. All processes of a worker have it in an
    environment variable, so they can be found."""
    return f"{_namespace()} {os.getpid()} {_start_time(os.getpid())} {next(_numbers)}"


def _processes() -> Iterable[int]:
    if system.LINUX:
        return (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())
    import psutil

    return map(int, psutil.pids())


def _token_of(pid: int) -> str:
    """Return the token of a process, i.e. the text that identifies its worker. It is empty if the
    process has no token, has ended, or belongs to another user."""
    if system.LINUX:
        prefix = TOKEN_VARIABLE.encode() + b"="
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                if entry.startswith(prefix):
                    return entry[len(prefix) :].decode("utf-8", "replace")
        return ""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return str(psutil.Process(pid).environ().get(TOKEN_VARIABLE, ""))
    return ""


def _namespace() -> str:
    """Return the name of the set of process numbers: a container has its own."""
    return os.readlink("/proc/self/ns/pid") if system.LINUX else "portable"


def _start_time(pid: int) -> str:
    """Return the start time of a process; empty if the process has ended."""
    if system.LINUX:  # in clock ticks since the start of the system
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else fields[19]
        return ""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    return ""


# Functions that end processes which have outlived their worker. Normally the supervisor ends all
# processes of its worker, so this code is for a supervisor that was killed. On Linux a supervisor
# that is alive gets a signal and is not killed, because it also finds processes that have cleared
# their environment.


def end_holders(token: str) -> None:
    """Kill all processes of the worker with this token. If they start new processes, continue to
    kill for at most a second."""
    _end_matching(lambda found: found == token)


def end_abandoned() -> None:
    """Kill processes of workers whose harness process has ended."""
    _end_matching(_is_abandoned)


def _end_matching(is_doomed: Callable[[str], bool]) -> None:
    end = time.monotonic() + _END_SECONDS
    while [
        pid for pid in _processes() if _end_if_matching(pid, is_doomed)
    ] and time.monotonic() < end:
        time.sleep(0.01)


def _end_if_matching(pid: int, is_doomed: Callable[[str], bool]) -> bool:
    """Kill the process ``pid`` if the function ``is_doomed`` returns True for its token (the text
    that identifies its worker). Return whether a living process was killed."""
    if not is_doomed(_token_of(pid)):
        return False
    with contextlib.suppress(OSError):
        if not system.LINUX:
            os.kill(pid, signal.SIGKILL)
            return True
        pidfd = os.pidfd_open(pid)
        try:
            # Check again, because the number may have been reused before the pidfd was opened.
            if is_doomed(_token_of(pid)):
                for number in ENDING_SIGNALS if _is_supervisor(pid) else (signal.SIGKILL,):
                    signal.pidfd_send_signal(pidfd, number)
                return True
        finally:
            os.close(pidfd)
    return False


def _is_supervisor(pid: int) -> bool:
    """Return whether the process ``pid`` is a supervisor. If it is, a signal suffices to end it and
    its worker."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == _TITLE
    return False


def _is_abandoned(token: str) -> bool:
    namespace, _, rest = token.partition(" ")
    pid, _, rest = rest.partition(" ")
    started, _, _ = rest.partition(" ")
    # In another namespace (of a container), the same process number means another process.
    if namespace != _namespace() or not pid.isdecimal():
        return False
    return _start_time(int(pid)) != started
