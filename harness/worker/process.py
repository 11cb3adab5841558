"""Worker processes: start them, record their output, measure their memory, and end them reliably.
One permanent thread starts them all.

On POSIX systems, each start runs a supervisor (:mod:`harness.worker.supervisor`) whose child is the
worker.
"""

from __future__ import annotations

import atexit
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from harness.command.interrupts import before_leaving
from harness.files.system import (
    POSIX,
    check_variable,
    free_start,
    open_log,
    process_memory,
    read_at,
)
from harness.worker.ending import end_abandoned, end_soon, new_ender

LOG_TAIL = 64 << 10
"""The number of bytes at the end of a log that are kept."""

_LOG_ON_DISK = 16 << 20
# After so many reads the log is cut, because a worker that still prints will soon print more.
_READ_AGAIN = 10
# The bytes of a block in struct stat, which are the same on every file system.
_BLOCK = 512


class Log:
    """The output of a worker, in an unnamed file. The last bytes of the output can be read.

    The file disappears when the last process that has it open ends.
    """

    def __init__(self) -> None:
        self._file, self.writer = open_log()
        self._tail = b""
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._file.fileno()

    def clear(self) -> None:
        """Discard the output so far."""
        with self._lock:
            os.ftruncate(self.fileno(), 0)
            self._tail = b""

    def watch(self) -> None:
        """Free the disk space of old output if the file has grown large. Call this often while the
        worker runs.

        If the file system cannot free a part of a file, output during this call may be lost.
        """
        with self._lock:
            if self._file.closed:
                return
            status = os.fstat(self.fileno())
            if getattr(status, "st_blocks", status.st_size // _BLOCK) * _BLOCK <= _LOG_ON_DISK:
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
            # Output after the last read and before this line is lost.
            os.ftruncate(self.fileno(), 0)

    def read(self) -> str:
        """Return the last bytes of output since :meth:`clear` as text."""
        with self._lock:
            size = os.fstat(self.fileno()).st_size
            tail = (self._tail + self._read_tail(size))[-LOG_TAIL:]
            return tail.decode("utf-8", "replace")

    def close(self) -> None:
        with self._lock:
            self.writer.close()
            self._file.close()

    def _read_tail(self, size: int) -> bytes:
        return read_at(self.fileno(), LOG_TAIL, max(0, size - LOG_TAIL))


_WATCH_SECONDS = 0.5


class Process:
    """A running worker process: its socket, its output (log), and the object that ends it: a
    supervisor, or a Job Object of Windows."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start ``command``, a command line of :func:`harness.worker.ending.worker_command`, with
        the number of the worker's connection appended (``--fd N``).

        Raises:
            OSError: the command cannot be started.
            UsageError: ``HARNESS_SYSTEM`` has an unknown value.
        """
        check_variable()
        self.log = Log()
        self._ender = new_ender()
        self.wait, self.has_ended = self._ender.wait, self._ender.has_ended
        try:
            _in_spawner(
                lambda: self._start(
                    [*command, *self._ender.arguments], {**environment, **self._ender.variables}
                )
            )
        except BaseException:
            self._ender.abandon()
            self.log.close()
            raise

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.log.writer,
            stderr=self.log.writer,
            env=environment,
            **self._ender.start_options,
        )
        self._attach(started)
        return started

    def _attach(self, started: subprocess.Popen[bytes]) -> None:
        self._ender.attach(started)
        self._number = started.pid
        _live[started.pid] = self.log

    @property
    def connection(self) -> socket.socket:
        """The socket to the process. After :meth:`wait` it may be a different socket."""
        return self._ender.connection

    @property
    def pid(self) -> int:
        """The id of the process. Before a supervisor has started the worker, it is the supervisor's
        id."""
        return self._ender.pid

    def end(self) -> int | None:
        """Kill the worker and all processes that it has started; return its exit status, or None if
        the system does not end the process in time.

        All resources except the log are freed.
        """
        code = self._ender.end()
        _live.pop(self._number, None)
        return code

    def memory(self) -> int:
        """Return the resident bytes of the worker and its descendants; 0 after their end.

        A forked child shares most memory pages with its parent, so a plain sum would count them
        twice. On Linux, a page that n of the processes share counts as 1/n in each of them.
        """
        processes = self._ender.members()
        return sum(process_memory(pid, shared=len(processes) > 1) for pid in processes)


def kill_all() -> None:
    """Kill all workers that this process has started. It is safe to call in a signal handler."""
    for pid in tuple(_live):
        end_soon(pid)


before_leaving.append(kill_all)

_live: dict[int, Log] = {}
"""The logs of running workers, by the id of the started process (on POSIX systems, the
supervisor)."""
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
        end_soon(future.result().pid)


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


atexit.register(kill_all)
if POSIX:
    os.register_at_fork(after_in_child=_forget_parent)


def exit_cause(code: int | None, when: str) -> str:
    """Describe how a process ended: by the name of the signal, or by its exit code followed by
    ``when``, e.g. "exit code 0 during the call"."""
    if code is None:
        return "it was killed, but the kernel has not ended it yet"
    if code >= 0:
        # Windows ends a crashed process with a large code, which is documented as a hexadecimal.
        return f"exit code {code if code < 256 else hex(code)} {when}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
