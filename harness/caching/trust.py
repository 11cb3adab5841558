"""Rule for the files in the cache folder: who may have written them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from harness.files.system import POSIX


def is_private(path: Path) -> bool:
    """Return whether only this user can have written a file or folder. A symbolic link is not
    private.

    Raises:
        OSError: the file does not exist.
    """
    status = path.lstat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # Windows protects the user's folders by access lists, which this function does not read.
    is_own = not POSIX or (status.st_uid == os.geteuid() and not others_write)
    return is_own and not stat.S_ISLNK(status.st_mode)
