"""The end of processes: each worker has an object that watches and ends its processes.

On POSIX systems, this object is a supervisor process (:mod:`harness.worker.posix_processes`). On
Windows it is a Job Object, which the system itself ends if the harness is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import subprocess
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from secrets import token_hex
from typing import Any, NoReturn, Protocol

from harness.files import system

_REAP_SECONDS = 1.0
# Constants of Windows: the limit and the class of SetInformationJobObject, the class of
# QueryInformationJobObject, the flags of CreateProcess, and the access rights of OpenProcess
# (PROCESS_TERMINATE and PROCESS_SET_QUOTA).
_KILL_ON_JOB_CLOSE, _EXTENDED_LIMITS, _PROCESS_IDS = 0x2000, 9, 3
_SUSPENDED, _NO_WINDOW, _ADD_TO_JOB = 0x4, 0x08000000, 0x0101
_KILLED = 1
# The variable with the key of a worker on Windows, the key's length, and the longest time to send
# it.
_KEY, _KEY_LENGTH, _KEY_SECONDS = "HARNESS_WORKER_KEY", 64, 1.0


def worker_command(python: str, module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of a process that runs a module with arguments; the caller appends
    further arguments. On POSIX systems the process is a supervisor, whose child runs the module."""
    # -P keeps the current folder off the import path, so that a torch.py there is not imported.
    supervisor = ["harness.worker.supervisor", str(os.getpid())] if system.POSIX else []
    return [python, "-P", "-m", *supervisor, module, *arguments]


def replace_process(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Run a program in the place of this process.

    Windows has no ``exec``, so this process waits there for the program, and ends with its exit
    code.

    Raises:
        OSError: the program cannot be started.
    """
    if system.POSIX:
        os.execve(command[0], command, environment)
    code = subprocess.call(command, env=environment)
    os._exit(ctypes.c_int(code).value)


class Ender(Protocol):
    """The object that watches and ends the processes of one worker."""

    connection: socket.socket
    """The socket to the worker; it never blocks."""
    arguments: Sequence[str]
    """Arguments to append to the command line."""
    variables: Mapping[str, str]
    """Environment variables to add."""
    start_options: Mapping[str, Any]
    """Further arguments of ``subprocess.Popen``."""

    def attach(self, started: subprocess.Popen[bytes]) -> None:
        """Take charge of the process that was started.

        Raises:
            OSError: the system refuses that. The process is killed.
        """

    def abandon(self) -> None:
        """Free all resources, if no process was started."""

    @property
    def pid(self) -> int:
        """The worker's process id, or the id of the process that starts the worker."""

    def has_ended(self, wait: float = 0.0) -> bool:
        """Return whether the worker has ended; wait for its end at most ``wait`` seconds."""

    def wait(self, seconds: float, writing: bool = False) -> tuple[bool, bool, bool]:
        """Wait at most ``seconds`` until the worker ends, or until the socket can be read or, with
        ``writing``, written. Return whether it can be read, whether it can be written, and whether
        the worker has ended."""

    def members(self) -> set[int]:
        """Return the ids of the worker and of all processes that it has started."""

    def end(self) -> int | None:
        """Kill the worker and all processes that it has started, free all resources, and return the
        worker's exit status.

        As in ``subprocess``, the status is negative if a signal ended the process. It is None if
        the kernel does not end the process in time, for example because of a device driver.
        """


def new_ender() -> Ender:
    """Return the object that will end the processes of a new worker."""
    if system.POSIX:
        from harness.worker.posix_processes import Supervisor

        return Supervisor()
    return Job()


def open_connection(number: int) -> socket.socket:
    """Return the worker's socket to the harness. ``number`` is its descriptor, or on Windows, where
    processes do not inherit sockets reliably, the port to connect to."""
    if system.POSIX:
        return socket.socket(fileno=number)
    connection = socket.create_connection(("127.0.0.1", number))
    _send_at_once(connection)
    connection.sendall(os.environ[_KEY].encode())
    return connection


def _send_at_once(connection: socket.socket) -> None:
    # By default, a small message waits until the message before it has been acknowledged.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def end_soon(pid: int) -> None:
    """Make a worker and its processes end, and do not wait. ``pid`` is the process that was
    started. On Windows they end with this process."""
    if system.POSIX:
        from harness.worker import posix_processes

        posix_processes.end_soon(pid)


def end_abandoned() -> None:
    """Kill processes of workers whose harness process has ended. On Windows there are none."""
    if system.POSIX:
        from harness.worker import posix_processes

        posix_processes.end_abandoned()


class Job:
    """A Job Object of Windows, which holds a worker and all processes that it has started.

    A process cannot leave it. Windows kills all its processes when its only handle is closed, so
    also if this process is killed.
    """

    def __init__(self) -> None:
        # The worker connects to this socket, and proves with the key that it is the worker.
        self.connection = self._listener = socket.create_server(("127.0.0.1", 0))
        self._key = token_hex(_KEY_LENGTH // 2)
        self.arguments: Sequence[str] = ["--fd", str(self._listener.getsockname()[1])]
        self.variables: Mapping[str, str] = {_KEY: self._key}
        self.start_options: Mapping[str, Any] = {"creationflags": _SUSPENDED | _NO_WINDOW}
        self._library = ctypes.CDLL("kernel32")
        for function in ("CreateJobObjectW", "OpenProcess"):
            getattr(self._library, function).restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._call("CreateJobObjectW", None, None))
        limits = (ctypes.c_uint32 * 36)()  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION
        limits[4] = _KILL_ON_JOB_CLOSE
        size = ctypes.sizeof(limits)
        self._call("SetInformationJobObject", self._handle, _EXTENDED_LIMITS, limits, size)

    def attach(self, started: subprocess.Popen[bytes]) -> None:
        import psutil

        self._popen = started
        process = ctypes.c_void_p(self._call("OpenProcess", _ADD_TO_JOB, 0, started.pid))
        try:
            self._call("AssignProcessToJobObject", self._handle, process)
            psutil.Process(started.pid).resume()
        except BaseException:
            started.kill()  # it does not run yet, and nothing else would end it
            raise
        finally:
            self._call("CloseHandle", process)

    def has_ended(self, wait: float = 0.0) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(wait)
        return self._popen.returncode is not None

    def wait(self, seconds: float, writing: bool = False) -> tuple[bool, bool, bool]:
        # The end of the worker closes its socket, so it ends this wait too.
        ready = [self.connection]
        read, write, _ = select.select(ready, ready if writing else [], [], seconds)
        if read and self.connection is self._listener:
            read = []
            self._accept()
        return bool(read), bool(write), self.has_ended()

    def _accept(self) -> None:
        """Accept the connection of the worker; reject that of a process without the key."""
        connection, _ = self._listener.accept()
        connection.settimeout(_KEY_SECONDS)
        key = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(_KEY_LENGTH - len(key)):
                key += part
        if compare_digest(key, self._key.encode()):
            self._listener.close()
            self.connection = connection
            _send_at_once(connection)
            connection.setblocking(False)
        else:
            connection.close()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def members(self) -> set[int]:
        ids = (ctypes.c_size_t * 4096)()  # JOBOBJECT_BASIC_PROCESS_ID_LIST: two counts, the ids
        size = ctypes.sizeof(ids)
        self._call("QueryInformationJobObject", self._handle, _PROCESS_IDS, ids, size, None)
        return set(ids[1 : 1 + (ids[0] >> 32)])

    def end(self) -> int | None:
        code = self._popen.poll()
        self._call("TerminateJobObject", self._handle, _KILLED)
        self.abandon()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_REAP_SECONDS)
        return self._popen.returncode if code is None else code

    def abandon(self) -> None:
        self._call("CloseHandle", self._handle)
        self.connection.close()

    def _call(self, function: str, *arguments: Any) -> int:
        result: int | None = getattr(self._library, function)(*arguments)
        if not result:
            raise OSError(f"{function} failed: error {self._library.GetLastError()} of Windows")
        return result
