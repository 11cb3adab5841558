"""Simulation of macOS or Windows: removes from Python what the system named by ``PLAYED`` lacks.

For Windows, it also plays the functions of Windows that the harness calls.
"""

import ctypes
import importlib.abc
import os
import select
import shutil
import signal
import subprocess  # imported first, as the standard library must see the real system
import sys
import types
from typing import Any

import pooch  # noqa: F401 (imported first, for the same reason)
import psutil

MACOS = {
    os: "pidfd_open pipe2 sched_getaffinity sched_setaffinity posix_fallocate memfd_create eventfd",
    signal: "sigtimedwait sigwaitinfo pidfd_send_signal",
}
WINDOWS = {
    os: "fork setsid killpg getuid geteuid waitid sysconf pathconf mkfifo pread pwrite makedev "
    "set_blocking getpgid fchmod getloadavg O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK "
    "O_NOCTTY register_at_fork wait openpty getgid getegid chown",
    signal: "SIGHUP SIGALRM SIGKILL SIGCHLD SIGPIPE SIGQUIT SIGCONT SIGSTOP setitimer "
    "ITIMER_REAL pthread_sigmask pthread_kill sigwait alarm SIGBUS SIGUSR1 SIGTSTP sigpending",
    select: "poll epoll",
}
MODULES = {"fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "readline"}
SYMBOLS = {"fallocate", "prctl"}
LIBRARIES = ("psutil", "threadpoolctl", "sitecustomize")


class Library(ctypes.CDLL):
    """The C library without the functions that only Linux has; or ``kernel32`` of Windows."""

    def __new__(cls, name: str | None = None, *_: object, **__: object) -> Any:
        """Return the played library of Windows, or the real library."""
        return Kernel() if name == "kernel32" else super().__new__(cls)

    def __getattr__(self, name: str) -> object:
        if name in SYMBOLS:
            raise AttributeError(f"dlsym(RTLD_DEFAULT, {name}): symbol not found")
        return super().__getattr__(name)


class Function:
    """A function of a library."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def __call__(self, *arguments: object) -> object:
        """Call the function."""
        return self.call(*arguments)


class Kernel:
    """The functions of kernel32 that the harness calls. A job is a list of process ids. Processes
    that they start belong to it if they are in the same session."""

    jobs: dict[int, list[int]] = {}  # noqa: RUF012

    def __getattr__(self, name: str) -> Function:
        found = Function(getattr(type(self), f"_{name}"))
        setattr(self, name, found)
        return found

    @classmethod
    def _CreateJobObjectW(cls, *_: object) -> int:
        cls.jobs[len(cls.jobs) + 1] = []
        return len(cls.jobs)

    @staticmethod
    def _SetInformationJobObject(job: Any, kind: int, limits: Any, size: int) -> bool:
        # JOBOBJECT_EXTENDED_LIMIT_INFORMATION and KILL_ON_JOB_CLOSE
        return (kind, size) == (9, 144) and limits[4] == 0x2000

    @staticmethod
    def _OpenProcess(rights: int, inherited: int, pid: int) -> int:
        return pid

    @classmethod
    def _AssignProcessToJobObject(cls, job: Any, process: Any) -> bool:
        cls.jobs[job.value].append(process.value)
        return True

    @classmethod
    def _members(cls, job: Any) -> list[int]:
        return [p.pid for p in psutil.process_iter() if os.getsid(p.pid) in cls.jobs[job.value]]

    @classmethod
    def _QueryInformationJobObject(cls, job: Any, kind: int, ids: Any, size: int, _: None) -> bool:
        members = cls._members(job)
        ids[0] = len(members) << 32 | len(members)
        for place, pid in enumerate(members, 1):
            ids[place] = pid
        return kind == 3

    @classmethod
    def _TerminateJobObject(cls, job: Any, code: int) -> bool:
        for pid in cls._members(job):
            KILL(pid, 9)
        return True

    @classmethod
    def _CloseHandle(cls, handle: Any) -> bool:
        return handle.value not in cls.jobs or cls._TerminateJobObject(handle, 1)

    @staticmethod
    def _LockFileEx(*_: object) -> bool:
        return True

    _UnlockFileEx = _LockFileEx


class Started(subprocess.Popen):  # type: ignore[type-arg]
    """A process whose flags are those of Windows: it begins a session of its own."""

    def __init__(self, *arguments: Any, creationflags: int = 0, **options: Any) -> None:
        assert not creationflags or creationflags == 0x08000004  # suspended, without a window
        super().__init__(*arguments, start_new_session=bool(creationflags), **options)

    def kill(self) -> None:
        """Kill the process, without the signals that Windows lacks."""
        KILL(self.pid, 9)


def _create_file(path: str, access: int, *_: object) -> int:
    write = os.O_WRONLY | os.O_APPEND
    return os.open(path, write if access == 0x100004 else os.O_RDONLY)


class Missing(importlib.abc.MetaPathFinder):
    """An import hook that makes modules missing that Windows does not have."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise an error for a module that is missing on the simulated system."""
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _no_files_of_linux(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir"):
        path = arguments[0]
        if isinstance(path, str) and path.startswith(("/proc", "/sys/")) and not _asks_library():
            raise FileNotFoundError(2, "No such file or directory", path)


def _asks_library() -> bool:
    """Return whether a library opens the file that has other sources on the simulated system."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals["__name__"] in ("os", "pathlib", "contextlib"):
        frame = frame.f_back
    return frame is not None and frame.f_globals["__name__"].startswith(LIBRARIES)


def _is_open(*paths: str) -> bool:
    handles = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    opened = {os.path.realpath(handle) for handle in handles}
    return any(os.path.realpath(path) in opened for path in paths)


def _files_of_windows(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse what Windows refuses: to open a folder, to move or delete an open file, and names with
    some characters."""
    paths = [os.fspath(a) for a in arguments[:2] if isinstance(a, str | os.PathLike)]
    if event == "open" and paths and isinstance(arguments[2], int):
        created = arguments[2] & os.O_CREAT
        if created and set('<>:"|?*\\') & set(os.path.basename(paths[0])):
            raise OSError(22, "Invalid argument", paths[0])
        is_temporary = arguments[1] is not None or arguments[2] & os.O_TMPFILE
        if os.path.isdir(paths[0]) and not is_temporary:
            raise PermissionError(13, "Permission denied", paths[0])
    if event in ("os.rename", "os.remove") and _is_open(*paths):
        if sys._getframe(1).f_globals["__name__"] == "tempfile":
            return  # Windows itself deletes these files, when they are no longer open
        raise PermissionError(13, "The process cannot access the file", *paths[:1])


def _take(names: dict[object, str]) -> None:
    for module, words in names.items():
        for name in words.split():
            delattr(module, name)


_take(MACOS)
ctypes.CDLL = Library
sys.addaudithook(_no_files_of_linux)
if os.environ["PLAYED"] == "windows":
    KILL = os.kill
    subprocess.Popen = Started  # type: ignore[misc]
    psutil.Process.resume = lambda process: None  # it was not suspended
    _take(WINDOWS)
    sys.modules["_winapi"] = types.SimpleNamespace(CreateFile=_create_file)  # type: ignore[assignment]
    sys.modules["msvcrt"] = types.SimpleNamespace(  # type: ignore[assignment]
        open_osfhandle=lambda handle, _: handle, get_osfhandle=lambda handle: handle
    )
    sys.meta_path.insert(0, Missing())
    sys.addaudithook(_files_of_windows)
    shutil._use_fd_functions = False
    for lost in MODULES:
        sys.modules.pop(lost, None)
