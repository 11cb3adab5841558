"""Rules for the files in the cache folder: who may have written them, and for which processor."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path


def is_private(path: Path) -> bool:
    """Return whether only this user can have written a file or folder. A symbolic link is not
    private.

    Raises:
        OSError: the file does not exist.
    """
    status = path.lstat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid == os.geteuid() and not others_write and not stat.S_ISLNK(status.st_mode)


@cache
def processor() -> str:
    """Return the name and the features of the processor, on which compiled code and rounding errors
    depend."""
    keys = ("model name", "flags", "Features")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(keys)))
