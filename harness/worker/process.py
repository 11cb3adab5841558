"""Worker processes: start them, record their output, measure their memory, and end them reliably.
One permanent thread starts them all.

Each start runs a supervisor (:mod:`harness.worker.guardian`) whose child is the worker.
"""

from __future__ import annotations

import atexit
import contextlib
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

from harness.command.interrupts import before_leaving
from harness.files.system import check_workers, free_start, process_memory, set_append
from harness.worker.ending import (
    TOKEN_VARIABLE,
    end_abandoned,
    end_holders,
    ending_signals,
    members,
    new_token,
    open_watch,
)

LOG_TAIL = 64 << 10
"""The number of bytes at the end of a log that are kept."""

_LOG_ON_DISK = 16 << 20
# After so many reads the log is cut, because a worker that still prints will soon print more.
_READ_AGAIN = 10
# The bytes of a block in struct stat, which are the same on every file system.
_BLOCK = 512


class Log:
    """The output of a worker, in an unnamed file. The last bytes of the output can be read, and all
    bytes are counted.

    The file disappears when the last process that has it open ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed by `close`)
        self._tail = b""
        self._dropped = 0
        self._lock = threading.Lock()
        set_append(self.fileno())  # the worker writes at the new end after the file is cut

    def fileno(self) -> int:
        return self._file.fileno()

    def clear(self) -> None:
        """Discard the output so far, and start to count from 0."""
        with self._lock:
            os.ftruncate(self.fileno(), 0)
            self._tail = b""
            self._dropped = 0

    def watch(self) -> None:
        """Free the disk space of old output if the file has grown large. Call this often while the
        worker runs.

        If the file system cannot free a part of a file, output during this call may be lost.
        """
        with self._lock:
            if self._file.closed:
                return
            status = os.fstat(self.fileno())
            if status.st_blocks * _BLOCK <= _LOG_ON_DISK:
                return
            size = status.st_size
            if free_start(self.fileno(), size - LOG_TAIL):
                return
            # The file system cannot free a part of a file.
            for _ in range(_READ_AGAIN):
                read, self._tail = size, self._read_tail(size)
                size = os.fstat(self.fileno()).st_size
                if size == read:  # if not, read the new output, which may be the worker's last
                    break
            # Output after the last read and before this line is lost and not counted.
            os.ftruncate(self.fileno(), 0)
            self._dropped += size

    def read(self) -> tuple[str, int]:
        """Return the last bytes of output since :meth:`clear` as text, and the number of all bytes
        since then."""
        with self._lock:
            size = os.fstat(self.fileno()).st_size
            tail = (self._tail + self._read_tail(size))[-LOG_TAIL:]
            return tail.decode("utf-8", "replace"), self._dropped + size

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _read_tail(self, size: int) -> bytes:
        return os.pread(self.fileno(), LOG_TAIL, max(0, size - LOG_TAIL))


_REAP_SECONDS = 1.0
_WATCH_SECONDS = 0.5


class Process:
    """A running worker process: its socket, its output (log), and its supervisor.

    ``poll.register(*process.watch)`` makes a poll report the end of the supervisor.

    The supervisor ends only after the worker, and after all processes that the worker has started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start ``command``, the command line of a supervisor, with ``--fd N --report N`` appended.
        These are the file descriptors of the worker's socket and of the supervisor's reports.

        Raises:
            OSError: the command cannot be started.
            UsageError: workers cannot run on this system.
        """
        check_workers()
        self.log = Log()
        self.connection, theirs = socket.socketpair()
        self._report, report = os.pipe()
        self._report_bytes = b""
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
        self.watch = open_watch(self._popen.pid, self._report)
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
        """The worker's process id. Before the worker exists, it is the supervisor's process id."""
        return (self._read_reports() or [self._popen.pid])[0]

    def has_ended(self, wait: float = 0.0) -> bool:
        """Return whether the process has ended; wait for its end at most ``wait`` seconds."""
        poll = select.poll()
        poll.register(*self.watch)
        return bool(poll.poll(wait * 1000))

    def end(self) -> int | None:
        """Kill the worker and all processes that it has started; return its exit status.

        All resources except the log are freed. As in ``subprocess``, the status is negative if a
        signal ended the process. It is None if the kernel does not end the process in time, for
        example because of a device driver.
        """
        _signal_to_end(self._popen.pid)
        if not self.has_ended(_REAP_SECONDS) and not self._read_reports():
            self._popen.kill()  # the supervisor hangs before it starts the worker
        _live.pop(self._popen.pid, None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_REAP_SECONDS)
        code = self._popen.returncode
        match self._read_reports():
            case [_, status]:
                code = os.waitstatus_to_exitcode(status)
            case _:  # the supervisor was killed before it finished
                end_holders(self._token)
        os.close(self.watch[0])
        self._close()
        return code

    def memory(self) -> int:
        """Return the resident bytes of the worker and its descendants; 0 after their end.

        A forked child shares most memory pages with its parent, so a plain sum would count them
        twice. On Linux, a page that n of the processes share counts as 1/n in each of them.
        """
        processes = members(self._popen.pid, self._token)
        return sum(process_memory(pid, shared=len(processes) > 1) for pid in processes)

    def _read_reports(self) -> list[int]:
        """Return the numbers that the supervisor has written so far: none, the worker's process id,
        or this id and the worker's exit status."""
        with contextlib.suppress(OSError):  # nothing new, or closed
            self._report_bytes += os.read(self._report, 64)
        return [int(line) for line in self._report_bytes.split(b"\n")[:-1]]

    def _close(self) -> None:
        self.connection.close()
        os.close(self._report)
        self._report = -1  # the number may be reused


def kill_all() -> None:
    """Kill all workers that this process has started. It is safe to call in a signal handler."""
    for guardian in tuple(_live):
        _signal_to_end(guardian)


before_leaving.append(kill_all)

_live: dict[int, Log] = {}
"""The logs of running workers, by the process number of their supervisor."""
_jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_spawner: threading.Thread | None = None
_spawner_lock = threading.Lock()


def _in_spawner(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Call ``start`` in the permanent thread that starts all workers, and return the started
    process.

    The kernel kills a worker when the *thread* that started it ends, so a short-lived thread cannot
    start workers. The permanent thread is a daemon, so Python does not wait for it at exit. Python
    does wait for other threads, which may still need their workers.
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
        future.add_done_callback(_end_unwanted)  # after Ctrl-C no caller will end the new process
        raise


def _end_unwanted(future: Future[subprocess.Popen[bytes]]) -> None:
    if future.exception() is None:
        _signal_to_end(future.result().pid)


def _spawn_forever() -> None:
    """Run the permanent thread: start workers on request, and cut their logs in between."""
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
    """Forget all workers, after a fork, in the child process. The workers, and the thread that
    starts them, belong to the parent."""
    global _spawner, _spawner_lock, _jobs
    _live.clear()
    _spawner, _spawner_lock, _jobs = None, threading.Lock(), queue.SimpleQueue()


def _signal_to_end(guardian: int) -> None:
    """Send signals to the supervisor ``guardian`` (a process id), so that it ends all its
    processes. It also works if the supervisor is stopped."""
    with contextlib.suppress(ProcessLookupError):
        for number in ending_signals():
            os.kill(guardian, number)


atexit.register(kill_all)
if hasattr(os, "register_at_fork"):  # explain imports this module on Windows too
    os.register_at_fork(after_in_child=_forget_parent)


def exit_cause(code: int | None, when: str) -> str:
    """Describe how a process ended: by the name of the signal, or by its exit code followed by
    ``when``, e.g. "exit code 0 during the call"."""
    if code is None:
        return "it was killed, but the kernel has not ended it yet"
    if code >= 0:
        return f"exit code {code} {when}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
