"""Files that are made beside their place and put there once they are whole.

Whoever makes them holds a lock on them. What a process has left that was killed meanwhile is
taken away by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from harness.errors import UsageError
from harness.files.atomic import LEFT_OVER, sync_folder

FOLDERS, FILES = ".harness-export-", ".harness-part-"


@contextmanager
def staging(place: Path) -> Iterator[Path]:
    """A folder beside ``place``, so that a rename is all that is left to do.

    Raises :class:`UsageError` where none can be made.
    """
    sweep(place.parent)
    folder = place.parent / f"{FOLDERS}{token_hex(8)}"
    try:
        folder.mkdir(0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot write {place}: {error.strerror}") from None
    try:
        with suppress(OSError):  # some file systems know no locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new file beside ``path`` to write to, which takes its place once it is whole, or never.

    Its name ends as ``path``'s does, because some libraries go by that.
    """
    new = path.with_name(f"{FILES}{token_hex(8)}{path.suffix}")
    handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
        os.close(handle)
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what is left in a folder of exports that were killed: old, and held by nobody."""
    for prefix in (FOLDERS, FILES):
        for path in folder.glob(f"{prefix}*"):
            # Of any kind: it has just gone, or it is not ours to open.
            with suppress(OSError):
                _remove_left_over(path)


def _remove_left_over(path: Path) -> None:
    # Neither waits for a pipe nor goes where a link leads.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(handle).st_mtime <= LEFT_OVER:
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)
