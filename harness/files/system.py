"""Replacements for features that only some operating systems have.

Backends run only on Linux (:func:`check_workers`). The rest of the harness also runs on macOS and
Windows.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from harness.errors import UsageError


def cache_folder() -> Path:
    """Return the harness's folder in the user's cache folder. It may not exist yet."""
    import pooch  # slow to import, and most commands do not need it

    return Path(pooch.os_cache("backend-comparison-harness"))


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
        OSError: another process holds the lock, or there are no locks (some file systems, Windows).
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from None
    fcntl.flock(handle, sum(getattr(fcntl, f"LOCK_{name}") for name in names))


def memory() -> int | None:
    """Return the size of the main memory in bytes; None on Windows, which does not report it."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_workers() -> None:
    """Check that backends can run on this system.

    Raises:
        UsageError: the system has no process file descriptors (only Linux has them).
    """
    if not hasattr(os, "pidfd_open"):
        raise UsageError(
            f"backends run only on Linux, but this is {sys.platform} (without os.pidfd_open): use "
            "WSL 2 on Windows, or a Linux container such as Docker's; explain, differences, list, "
            "schema, report and compare run here"
        )
