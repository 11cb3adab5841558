"""Rule for the files in the cache folder: who may have written them."""

from __future__ import annotations

import os
import stat
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
