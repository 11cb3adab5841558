"""Files that are written whole: a crash at any moment leaves the old content or the new."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from pathlib import Path

# Seconds after which a temporary file that nobody has open is left over from a killed process.
LEFT_OVER = 60.0


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file: beside it first, then in its place, and on the disk when this returns.

    Its content are the parts, one after the other.

    What a link points to is replaced, and the link stays. A process that is killed may leave a
    hidden ``.harness-*.tmp`` in the folder, which :func:`sweep` takes away.

    Raises:
        OSError: the file cannot be written, or is no regular file (a device, a folder); an old
            one is as it was.
    """
    try:
        # Resolved, or the new file would take the link's place.
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            # A rename would put a file in the place of /dev/null.
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    except ValueError as error:  # a NUL character
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    temporary = target.with_name(f".harness-{secrets.token_hex(8)}.tmp")
    # Not mkstemp, whose files nobody else may read: here the umask decides.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            # Held until the file is closed, by whatever end the process comes to.
            with contextlib.suppress(OSError):  # some file systems know no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            for part in parts:
                _write(file.fileno(), part)
            os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is to be told
            os.unlink(temporary)
        raise
    sync_folder(target.parent)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed in :func:`write_whole` have left in a folder."""
    for path in folder.glob(".harness-*.tmp"):
        # Of any kind: somebody is writing it, has just put it in its place, or it is not ours.
        with contextlib.suppress(OSError):
            _remove_left_over(path)


def _remove_left_over(path: Path) -> None:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags)  # neither waits for a pipe nor goes where a link leads
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > LEFT_OVER:
            path.unlink()
    finally:
        os.close(handle)


def _write(handle: int, part: bytes | memoryview) -> None:
    """Write all of a part: one call of the system takes at most 2 GiB of it."""
    left = memoryview(part)
    while left:
        left = left[os.write(handle, left) :]


def sync_folder(folder: Path) -> None:
    """Put the new name on the disk: a file's own fsync keeps its bytes only.

    Where the folder may not be read, or its file system cannot do that, the name is there all the
    same and reaches the disk when the system sees fit.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)
