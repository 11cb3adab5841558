"""Files that are written whole: a crash at any moment leaves the old content or the new."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from pathlib import Path

# Seconds after which a temporary file that nobody has open is left over from a killed process.
LEFT_OVER = 60.0


def write_whole(path: Path, content: bytes) -> None:
    """Write a file: beside it first, then in its place, and on the disk when this returns.

    What a link points to is replaced, and the link stays. A process that is killed may leave a
    hidden ``.harness-*.tmp`` in the folder, which :func:`sweep` takes away.

    Raises:
        OSError: the file cannot be written, or is no regular file (a device, a folder); an old
            one is as it was.
    """
    # Resolved, or the new file would take the link's place.
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        # A rename would put a file in the place of /dev/null.
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    temporary = target.with_name(f".harness-{secrets.token_hex(8)}.tmp")
    # Not mkstemp, whose files nobody else may read: here the umask decides.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            # Held until the file is closed, by whatever end the process comes to.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(target.parent)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed in :func:`write_whole` have left in a folder."""
    for path in folder.glob(".harness-*.tmp"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(file.fileno()).st_mtime > LEFT_OVER:
                    path.unlink()
        except (BlockingIOError, FileNotFoundError):
            continue  # somebody is writing it, or has just put it in its place


def sync_folder(folder: Path) -> None:
    """Put the new name on the disk: a file's own fsync keeps its bytes only."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
