"""Simulation of macOS or Windows: removes from Python what the system named by ``PLAYED`` lacks."""

import ctypes
import importlib.abc
import os
import select
import shutil
import signal
import subprocess  # noqa: F401 (imported first, as the standard library must see the real system)
import sys

MACOS = {
    os: "pidfd_open pipe2 sched_getaffinity sched_setaffinity posix_fallocate memfd_create eventfd",
    signal: "sigtimedwait sigwaitinfo pidfd_send_signal",
}
WINDOWS = {
    os: "fork setsid killpg getuid geteuid waitid sysconf pathconf mkfifo pread pwrite makedev "
    "set_blocking getpgid WNOHANG fchmod getloadavg O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK "
    "O_NOCTTY register_at_fork wait openpty getgid getegid chown",
    signal: "SIGHUP SIGALRM SIGKILL SIGCHLD SIGPIPE SIGQUIT SIGCONT SIGSTOP setitimer "
    "ITIMER_REAL pthread_sigmask pthread_kill sigwait alarm SIGBUS SIGUSR1 SIGTSTP sigpending",
    select: "poll epoll",
}
MODULES = {"fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "readline"}
SYMBOLS = {"fallocate", "prctl"}
LIBRARIES = ("psutil", "threadpoolctl", "sitecustomize")


class Library(ctypes.CDLL):
    """The C library without the functions that only Linux has."""

    def __getattr__(self, name: str) -> object:
        if name in SYMBOLS:
            raise AttributeError(f"dlsym(RTLD_DEFAULT, {name}): symbol not found")
        return super().__getattr__(name)


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
        raise PermissionError(13, "The process cannot access the file", *paths[:1])


def _take(names: dict[object, str]) -> None:
    for module, words in names.items():
        for name in words.split():
            delattr(module, name)


_take(MACOS)
ctypes.CDLL = Library
sys.addaudithook(_no_files_of_linux)
if os.environ["PLAYED"] == "windows":
    _take(WINDOWS)
    sys.meta_path.insert(0, Missing())
    sys.addaudithook(_files_of_windows)
    shutil._use_fd_functions = False
    for lost in MODULES:
        sys.modules.pop(lost, None)
