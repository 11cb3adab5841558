"""Worker processes: started from one lasting thread, logged, measured, and surely ended.

Linux only: it uses pidfd, PR_SET_PDEATHSIG (set by the worker) and /proc.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import queue
import select
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

LOG_TAIL = 64 << 10
"""Bytes of a log that are kept: the last ones."""

_LOG_ON_DISK = 16 << 20
_REAP_SECONDS = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Log:
    """What a worker prints: a file without a name, of which the tail is kept and the rest counted.

    Having no name, it is gone with the last process that holds it, however that one ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed by `close`)
        self._tail = b""
        self._dropped = 0
        # With O_APPEND the worker goes on at the new end after the file was cut.
        flags = fcntl.fcntl(self.fileno(), fcntl.F_GETFL)
        fcntl.fcntl(self.fileno(), fcntl.F_SETFL, flags | os.O_APPEND)

    def fileno(self) -> int:
        return self._file.fileno()

    def clear(self) -> None:
        """Forget what was printed so far."""
        os.ftruncate(self.fileno(), 0)
        self._tail = b""
        self._dropped = 0

    def watch(self) -> None:
        """Cut the file if it has grown large; call this often while the worker runs."""
        size = os.fstat(self.fileno()).st_size
        if size > _LOG_ON_DISK:
            self._tail = self._read_tail(size)
            self._dropped += size
            os.ftruncate(self.fileno(), 0)

    def read(self) -> tuple[str, int]:
        """Return the tail of what was printed since `clear`, and the number of bytes in all."""
        size = os.fstat(self.fileno()).st_size
        tail = (self._tail + self._read_tail(size))[-LOG_TAIL:]
        return tail.decode("utf-8", "replace"), self._dropped + size

    def close(self) -> None:
        self._file.close()

    def _read_tail(self, size: int) -> bytes:
        return os.pread(self.fileno(), LOG_TAIL, max(0, size - LOG_TAIL))


class Process:
    """One running worker process: its socket, its pidfd and its log.

    It leads a session and process group of its own, and all of that group ends with it.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start `command` with ``--fd N`` for its end of the socket pair.

        Raises:
            OSError: the command cannot be started.
        """
        self.log = Log()
        self.connection, theirs = socket.socketpair()
        try:
            with theirs:
                self._popen = _in_spawner(
                    lambda: subprocess.Popen(
                        [*command, "--fd", str(theirs.fileno())],
                        stdin=subprocess.DEVNULL,
                        stdout=self.log.fileno(),
                        stderr=self.log.fileno(),
                        env=dict(environment),
                        pass_fds=[theirs.fileno()],
                        start_new_session=True,
                    )
                )
        except BaseException:
            self.connection.close()
            self.log.close()
            raise
        self.pid = self._popen.pid
        _live.add(self.pid)
        self.pidfd = os.pidfd_open(self.pid)
        self.connection.setblocking(False)

    def has_ended(self, wait: float = 0.0) -> bool:
        """Return whether the process has ended, after waiting for that at most `wait` seconds."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(wait * 1000))

    def end(self) -> int | None:
        """Kill the whole process group, free everything but the log; return the exit status.

        The status is negative for a signal, as in `subprocess`, and None if the kernel does not
        end the process in time, as it may while a device driver holds it.
        """
        # Before the process is waited for: until then its number cannot be given to another.
        _kill_group(self.pid)
        _live.discard(self.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_REAP_SECONDS)
        os.close(self.pidfd)
        self.connection.close()
        return self._popen.returncode

    def memory(self) -> int:
        """Return the resident bytes of the process and its descendants; 0 once it has ended."""
        try:
            children = _descendants(self.pid)
            if children:
                return sum(map(_proportional, (self.pid, *children)))
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0


def kill_all() -> None:
    """Kill every worker of this process at once; safe in a signal handler."""
    for pid in tuple(_live):
        _kill_group(pid)


_live: set[int] = set()
_jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_spawner: threading.Thread | None = None
_spawner_lock = threading.Lock()


def _in_spawner(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Call `start` in the thread that starts all workers.

    The kernel's parent-death signal comes when the *thread* that started a child ends, so a
    worker started from a short-lived thread would die with it. This thread is a daemon because
    Python joins other threads before the last user thread has finished with its workers.
    """
    global _spawner
    with _spawner_lock:
        if _spawner is None:
            _spawner = threading.Thread(target=_spawn_forever, name="worker-spawner", daemon=True)
            _spawner.start()
    future: Future[subprocess.Popen[bytes]] = Future()

    def job() -> None:
        try:
            future.set_result(start())
        except BaseException as error:
            future.set_exception(error)

    _jobs.put(job)
    return future.result()


def _spawn_forever() -> None:
    while True:
        _jobs.get()()


def _forget_parent() -> None:
    """In a forked child: the workers are the parent's, and the spawner did not come along."""
    global _spawner, _spawner_lock, _jobs
    _live.clear()
    _spawner, _spawner_lock, _jobs = None, threading.Lock(), queue.SimpleQueue()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, file.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _proportional(pid: int) -> int:
    """Return the resident bytes of a process, a page shared by n processes counted as 1/n.

    A forked child shares nearly all of its parent's pages: plain sums would count them twice.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


atexit.register(kill_all)
os.register_at_fork(after_in_child=_forget_parent)


def exit_cause(code: int | None, when: str) -> str:
    """For a person: the exit code, and when the process ended, or the name of its signal."""
    if code is None:
        return "it ended, and the kernel still holds it"
    if code >= 0:
        return f"exit code {code} {when}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
