"""Facts about this machine, and features that only some operating systems have.

Other modules of the harness ask this module, or :mod:`harness.worker.ending`, and never ask which
system they run on. The environment variable ``HARNESS_SYSTEM=portable`` makes Linux use the code
for other POSIX systems, so that Linux can test it.

The supervisor of every worker imports this module, so large imports are local.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import os
import platform
import re
import struct
import time
from functools import cache
from pathlib import Path
from typing import IO

from harness.errors import UsageError

VARIABLE, PORTABLE = "HARNESS_SYSTEM", "portable"
LINUX = hasattr(os, "pidfd_open") and os.environ.get(VARIABLE) != PORTABLE
"""True if the kernel has what the harness needs from Linux, and the user does not forbid its
use."""
POSIX = hasattr(os, "fork")
"""False on Windows, which forks no processes, opens no folders, and neither renames nor deletes a
file that is open."""
# Windows has devices of these names in every folder.
RESERVED = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)))
)
# Flags of LockFileEx, and the byte that it locks: one far behind the end of every file, because a
# locked byte cannot be read. The structure OVERLAPPED holds the byte's position.
_LOCK_FLAGS = {"NB": 1, "EX": 2}
_LOCKED_BYTE = struct.pack("=QQIIQ", 0, 0, 0, 1 << 20, 0)
# Arguments of CreateFile: the access FILE_APPEND_DATA and SYNCHRONIZE, or GENERIC_READ; other
# processes may read, write and delete the file; it must exist.
_APPEND, _READ, _SHARE_ALL, _OPEN_EXISTING = 0x100004, 0x80000000, 7, 3
_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
# Flags of linux/falloc.h: free the blocks of a part of a file, but keep the file's size.
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


def check_variable() -> None:
    """Raise :class:`UsageError` if the environment variable :data:`VARIABLE` has an unknown
    value."""
    if (value := os.environ.get(VARIABLE, "")) not in ("", PORTABLE):
        raise UsageError(f"{VARIABLE} takes {PORTABLE!r} or nothing, found {value!r}")


# Files.


def cache_folder() -> Path:
    """Return the harness's folder in the user's cache folder. It may not exist yet."""
    import pooch  # slow to import, and most commands do not need it

    return Path(pooch.os_cache("backend-comparison-harness"))


def file_name(name: str) -> str:
    """Return ``name``, or ``name~`` if Windows cannot have a file of that name. A name in a spec
    never contains ``~``."""
    return f"{name}~" if name.lower() in RESERVED else name


def opening(*names: str) -> int:
    """Return the flags of ``os.open`` with the given names, e.g. ``RDONLY``. A flag that the system
    lacks counts as 0.

    Files are opened in binary mode, also on Windows.
    """
    flags = 0
    for name in (*names, "BINARY"):
        flags |= getattr(os, f"O_{name}", 0)
    return flags


def flock(handle: int, *names: str) -> None:
    """Lock or unlock an open file; ``names`` are flags of ``fcntl.flock``: EX, SH, UN, NB.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file system has no locks.
    """
    if POSIX:
        import fcntl

        fcntl.flock(handle, sum(getattr(fcntl, f"LOCK_{name}") for name in names))
        return
    library, file = ctypes.CDLL("kernel32"), windows_handle(handle)
    place = ctypes.create_string_buffer(_LOCKED_BYTE)
    if "UN" in names:
        done = library.UnlockFileEx(file, 0, 1, 0, place)
    else:
        flags = sum(_LOCK_FLAGS.get(name, 0) for name in names)
        done = library.LockFileEx(file, flags, 0, 1, 0, place)
    if not done:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def windows_handle(file: int) -> ctypes.c_void_p:
    """Return the handle with which Windows names an open file (``file`` is its descriptor)."""
    msvcrt = importlib.import_module("msvcrt")  # typed only for Windows
    return ctypes.c_void_p(msvcrt.get_osfhandle(file))


def read_at(handle: int, size: int, offset: int) -> bytes:
    """Return at most ``size`` bytes of an open file, from the position ``offset``. On Windows, this
    changes the current position."""
    if POSIX:
        return os.pread(handle, size, offset)
    os.lseek(handle, offset, os.SEEK_SET)
    return os.read(handle, size)


def open_log() -> tuple[IO[bytes], IO[bytes]]:
    """Return a new temporary file, and the same file opened for other processes to write. Their
    output goes to the file's current end, even if the file has been cut."""
    import tempfile

    if POSIX:
        import fcntl

        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the caller closes it)
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
        return file, file
    named = tempfile.NamedTemporaryFile(buffering=0)  # noqa: SIM115 (the caller closes it)
    return named, os.fdopen(_open_temporary(named.name, _APPEND), "wb", 0)


def _open_temporary(path: str, access: int) -> int:
    """Open a temporary file of another process on Windows, and return its file descriptor. Python's
    ``open`` cannot do that, because Windows deletes the file when it is closed."""
    winapi, msvcrt = map(importlib.import_module, ("_winapi", "msvcrt"))  # typed only for Windows
    handle = winapi.CreateFile(path, access, _SHARE_ALL, 0, _OPEN_EXISTING, 0, 0)
    return int(msvcrt.open_osfhandle(handle, opening("RDONLY")))


def free_start(handle: int, size: int) -> bool:
    """Free the disk space of the first ``size`` bytes of a file (``handle`` is its file
    descriptor). Return False if the system or the file system cannot do that."""
    if not LINUX:
        return False
    fallocate = ctypes.CDLL(None).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    return bool(fallocate(handle, _KEEP_SIZE | _PUNCH_HOLE, 0, size) == 0)


def open_shared_file() -> tuple[IO[bytes], str]:
    """Return a new temporary file, and the path with which other processes can call
    :func:`reopen_shared_file` until it is closed here.

    On Linux the file has no name, so nothing is left of it if this process is killed.
    """
    import tempfile

    if LINUX:
        unnamed = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the caller closes it)
        return unnamed, f"/proc/{os.getpid()}/fd/{unnamed.fileno()}"
    named = tempfile.NamedTemporaryFile(buffering=0)  # noqa: SIM115 (the caller closes it)
    return named, named.name


def reopen_shared_file(path: str) -> int:
    """Open a file of :func:`open_shared_file` for reading, and return its file descriptor.

    Raises:
        OSError: the process that made the file has ended.
    """
    if POSIX:
        return os.open(path, opening("RDONLY", "CLOEXEC"))
    return _open_temporary(path, _READ)


# Memory.


def memory() -> int:
    """Return the size of the main memory in bytes."""
    if POSIX:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.virtual_memory().total)


def available_memory() -> int:
    """Return the bytes that this process may still allocate, given the machine's memory and the
    limits of its cgroups."""
    import psutil

    return min(int(psutil.virtual_memory().available), *_allowed_by_groups())


def _allowed_by_groups() -> list[int]:
    """Return for each cgroup of this process the number of bytes that it may still allocate; 2**62
    if there is no limit."""
    allowances = [1 << 62]
    for line in Path("/proc/self/cgroup").read_text().splitlines() if LINUX else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = Path("/sys/fs/cgroup", controllers)
        names = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
        # In a container the group is often mounted as the root.
        for folder in {root / path.lstrip("/"), root}:
            try:
                limit, used = (int((folder / f"memory.{n}").read_text()) for n in names)
            except (OSError, ValueError):  # no such file, or no limit: "max"
                continue
            allowances.append(max(0, limit - used))
    return allowances


def resident_memory() -> int:
    """Return the resident bytes of this process now."""
    if LINUX:  # an environment that was made for an older harness may lack psutil
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.Process().memory_info().rss)


def process_memory(pid: int, *, shared: bool) -> int:
    """Return the resident bytes of a process; 0 after its end. With ``shared``, a page that n
    processes share counts as 1/n, if the system tells."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        info = process.memory_full_info() if shared and LINUX else process.memory_info()
        # Without /proc/PID/smaps the kernel does not tell how pages are shared.
        return int(getattr(info, "pss", info.rss))
    return 0


def forget_peak_memory() -> None:
    """Return free memory to the kernel, and reset its record of this process's peak memory."""
    if not LINUX:
        return
    # Without glibc, e.g. on Alpine, the C library decides by itself.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Return the peak of this process's resident bytes since :func:`forget_peak_memory`, or since
    the start. Return None if the system cannot reset its record, as ``getrusage`` cannot."""
    if not LINUX:
        return None
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


# Processors.


def usable_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(_cores())


def restrict_cores(count: int) -> None:
    """Let this process, and all that it starts, use only ``count`` cores. Do nothing on systems
    that do not offer this, such as macOS."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _cores()[:count])


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@cache
def processor_name() -> str:
    """Return the model of the processor."""
    for line in _processor_lines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    name = ""
    if POSIX:
        import subprocess

        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]  # macOS
            name = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip()
    return name or platform.processor() or "unknown"


@cache
def processor_features() -> str:
    """Return the model and the features of the processor, on which compiled code and rounding
    errors depend."""
    keys = ("model name", "flags", "Features")
    found = dict.fromkeys(line for line in _processor_lines() if line.startswith(keys))
    return "\n".join(found) or f"{platform.machine()} {processor_name()}"


def _processor_lines() -> list[str]:
    with contextlib.suppress(OSError):
        if LINUX:
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
            return text.splitlines()
    return []


def read_clocks() -> dict[str, object]:
    """Return the governor and the clock frequencies (in MHz) of the first core, as far as they can
    be read."""
    clocks: dict[str, object] = {}
    with contextlib.suppress(OSError):
        clocks["governor"] = (_CPU / "scaling_governor").read_text().strip()
        clocks["highest_mhz"] = int((_CPU / "cpuinfo_max_freq").read_text()) / 1000
    for line in _processor_lines():
        if clock := re.fullmatch(r"cpu MHz\s*: ([\d.]+)", line):
            return {**clocks, "mhz": float(clock[1])}
    return clocks


def load_averages() -> tuple[float, float, float]:
    """Return the load averages of the machine over 1, 5 and 15 minutes; zeros on Windows, which has
    none."""
    if POSIX:
        return os.getloadavg()
    return 0.0, 0.0, 0.0


def processor_seconds(pid: int) -> float:
    """Return the processor seconds that all threads of a process have used since it started.

    The resolution is 10 ms on systems other than Linux.
    """
    if LINUX:  # the id of another process's CPU clock, computed like clock_getcpuclockid(3)
        return time.clock_gettime((~pid << 3) | 2)
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def read_waits(pid: int) -> tuple[float, float]:
    """Return the seconds that the main thread of a process has waited for a free core since it
    started, and the number of these waits; (0, 0) if unknown."""
    with contextlib.suppress(OSError):
        if LINUX:
            text = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text()
            _, nanoseconds, times = text.split()
            return int(nanoseconds) / 1e9, float(times)
    return 0.0, 0.0
