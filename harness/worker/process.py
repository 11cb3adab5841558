"""Worker processes: started from one lasting thread, logged, measured, and surely ended.

What is started is a :mod:`harness.worker.guardian`, whose child is the worker. Linux only: it uses
pidfd, PR_SET_PDEATHSIG (set by guardian and worker) and /proc.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import os
import queue
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from mmap import PAGESIZE
from pathlib import Path

from harness.command.interrupts import before_leaving
from harness.files.system import check_workers
from harness.worker.guardian import children, ending_signals, is_guardian

# The output of worker processes.

LOG_TAIL = 64 << 10
"""Bytes of a log that are kept: the last ones."""

_LOG_ON_DISK = 16 << 20
# Of linux/falloc.h: a part of a file gives its blocks back, and the rest stays where it is.
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
# A worker that still prints after so many looks will print the tail anew.
_READ_AGAIN = 10
# Of struct stat, in which a block is of so many bytes on every file system.
_BLOCK = 512


def _has_freed(handle: int, size: int) -> bool:
    """Free the first bytes of a file; return whether its file system can."""
    fallocate = ctypes.CDLL(None).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    return bool(fallocate(handle, _KEEP_SIZE | _PUNCH_HOLE, 0, size) == 0)


class Log:
    """The output of a worker: a file without a name; its tail is kept, and the rest counted.

    Having no name, it is gone with the last process that holds it, however that one ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed by `close`)
        self._tail = b""
        self._dropped = 0
        self._lock = threading.Lock()
        import fcntl

        # With O_APPEND the worker goes on at the new end after the file was cut.
        flags = fcntl.fcntl(self.fileno(), fcntl.F_GETFL)
        fcntl.fcntl(self.fileno(), fcntl.F_SETFL, flags | os.O_APPEND)

    def fileno(self) -> int:
        return self._file.fileno()

    def clear(self) -> None:
        """Forget what was printed so far."""
        with self._lock:
            os.ftruncate(self.fileno(), 0)
            self._tail = b""
            self._dropped = 0

    def watch(self) -> None:
        """Free the start of the file if it has grown large; call this often while the worker runs.

        What is printed in the meantime is kept, where the file system has holes.
        """
        with self._lock:
            if self._file.closed:
                return
            found = os.fstat(self.fileno())
            if found.st_blocks * _BLOCK <= _LOG_ON_DISK:
                return
            size = found.st_size
            if _has_freed(self.fileno(), size - LOG_TAIL):
                return
            # The file system has no holes.
            for _ in range(_READ_AGAIN):
                read, self._tail = size, self._read_tail(size)
                size = os.fstat(self.fileno()).st_size
                if size == read:  # the worker may be at its last words just now
                    break
            # What is written between that look and this line is neither counted nor kept.
            os.ftruncate(self.fileno(), 0)
            self._dropped += size

    def read(self) -> tuple[str, int]:
        """The tail of what was printed since ``clear``, and the number of bytes in all."""
        with self._lock:
            size = os.fstat(self.fileno()).st_size
            tail = (self._tail + self._read_tail(size))[-LOG_TAIL:]
            return tail.decode("utf-8", "replace"), self._dropped + size

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _read_tail(self, size: int) -> bytes:
        return os.pread(self.fileno(), LOG_TAIL, max(0, size - LOG_TAIL))


# Processes that outlived their worker and its guardian, found by a variable of their environment.
#
# A guardian ends all that its worker has started; this is for when the guardian itself was killed.
# One that is still there is told to do its work, and not killed in the middle of it: it finds what
# has emptied its environment, too.
# Every worker is given a token, which what it starts inherits and what is forked cannot lose: the
# namespace of the process numbers, the harness process with the time at which that was started, and
# a number of the worker. Linux only.

TOKEN_VARIABLE = "HARNESS_WORKER"

_END_SECONDS = 1.0
_numbers = itertools.count()


def new_token() -> str:
    """A token for a worker of this process."""
    return f"{_namespace()} {os.getpid()} {_started(os.getpid())} {next(_numbers)}"


def end_holders(token: str) -> None:
    """Kill every process that holds this token, again and again until none is left."""
    _end_all(lambda found: found == token)


def end_abandoned() -> None:
    """Kill what workers of harness processes have left that are no longer there themselves."""
    _end_all(_is_abandoned)


def _end_all(condemned: Callable[[str], bool]) -> None:
    end = time.monotonic() + _END_SECONDS
    while [pid for pid in _processes() if _end_one(pid, condemned)] and time.monotonic() < end:
        time.sleep(0.01)


def _end_one(pid: int, condemned: Callable[[str], bool]) -> bool:
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
    prefix = TOKEN_VARIABLE.encode() + b"="
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


_REAP_SECONDS = 1.0
_WATCH_SECONDS = 0.5


class Process:
    """One running worker process: its socket, its log, and the pidfd of its guardian.

    The guardian ends when the worker has ended, and all that the worker had started with it.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start ``command``, a guardian's but for its two descriptors: ``--fd N --report N``.

        Raises:
            OSError: the command cannot be started.
            UsageError: this system is not Linux.
        """
        check_workers()
        self.log = Log()
        self.connection, theirs = socket.socketpair()
        self._report, report = os.pipe()
        self._told = b""
        self._token = new_token()
        try:
            self._popen = _in_spawner(
                lambda: self._start(
                    [*command, "--fd", str(theirs.fileno()), "--report", str(report)],
                    {**environment, TOKEN_VARIABLE: self._token},
                    [theirs.fileno(), report],
                )
            )
        except BaseException:
            self._close()
            self.log.close()
            raise
        finally:
            theirs.close()
            os.close(report)
        self.pidfd = os.pidfd_open(self._popen.pid)
        self.connection.setblocking(False)
        os.set_blocking(self._report, False)

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.log.fileno(),
            stderr=self.log.fileno(),
            env=environment,
            pass_fds=descriptors,
            start_new_session=True,
        )
        _live[started.pid] = self.log
        return started

    @property
    def pid(self) -> int:
        """Process number of the worker; of its guardian as long as there is no worker yet."""
        return (self._reported() or [self._popen.pid])[0]

    def has_ended(self, wait: float = 0.0) -> bool:
        """Whether the process has ended, after waiting for that at most ``wait`` seconds."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(wait * 1000))

    def end(self) -> int | None:
        """Kill the worker and all that it started, free everything but the log; the exit status.

        The status is negative for a signal, as in ``subprocess``, and None if the kernel does not
        end the process in time, as it may while a device driver holds it.
        """
        _tell_to_end(self._popen.pid)
        if not self.has_ended(_REAP_SECONDS) and not self._reported():
            self._popen.kill()  # it hangs before it has started a worker
        _live.pop(self._popen.pid, None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_REAP_SECONDS)
        code = self._popen.returncode
        match self._reported():
            case [_, status]:
                code = os.waitstatus_to_exitcode(status)
            case _:  # the guardian was killed before its work was done
                end_holders(self._token)
        os.close(self.pidfd)
        self._close()
        return code

    def memory(self) -> int:
        """The resident bytes of the worker and its descendants; 0 once it has ended."""
        processes = _descendants(self._popen.pid)
        if len(processes) > 1:
            return sum(map(_proportional, processes))
        return sum(map(_resident, processes))

    def _reported(self) -> list[int]:
        """What the guardian has told: nothing yet, the worker's number, and its exit status."""
        with contextlib.suppress(OSError):  # nothing new, or closed
            self._told += os.read(self._report, 64)
        return [int(line) for line in self._told.split(b"\n")[:-1]]

    def _close(self) -> None:
        self.connection.close()
        os.close(self._report)
        self._report = -1  # the number may be another file's soon


def kill_all() -> None:
    """Kill every worker of this process at once; safe in a signal handler."""
    for guardian in tuple(_live):
        _tell_to_end(guardian)


before_leaving.append(kill_all)

_live: dict[int, Log] = {}
"""Of the guardians that were not waited for yet: their numbers, and their workers' logs."""
_jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_spawner: threading.Thread | None = None
_spawner_lock = threading.Lock()


def _in_spawner(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Call ``start`` in the thread that starts all workers.

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
    try:
        return future.result()
    except BaseException:
        future.add_done_callback(_end_unwanted)  # after Ctrl-C nobody else would
        raise


def _end_unwanted(future: Future[subprocess.Popen[bytes]]) -> None:
    if future.exception() is None:
        _tell_to_end(future.result().pid)


def _spawn_forever() -> None:
    """Start workers as they are asked for; in between, see to it that no log fills the disk."""
    jobs, swept = _jobs, False
    while True:
        try:
            jobs.get(timeout=_WATCH_SECONDS if _live else None)()
        except queue.Empty:
            for log in tuple(_live.values()):
                log.watch()
        if not swept:
            swept = True
            end_abandoned()


def _forget_parent() -> None:
    """In a forked child: the workers are the parent's, and the spawner did not come along."""
    global _spawner, _spawner_lock, _jobs
    _live.clear()
    _spawner, _spawner_lock, _jobs = None, threading.Lock(), queue.SimpleQueue()


def _tell_to_end(guardian: int) -> None:
    """Have a guardian kill its worker and all that this has started, should it be stopped too."""
    with contextlib.suppress(ProcessLookupError):
        for number in ending_signals():
            os.kill(guardian, number)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for child in children(pid):
        found += [child, *_descendants(child)]
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGESIZE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    """The resident bytes of a process, a page shared by n processes counted as 1/n.

    A forked child shares nearly all of its parent's pages: plain sums would count them twice.
    """
    with contextlib.suppress(OSError):
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
