"""Files that are written whole: a crash at any moment leaves the old content or the new."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file: beside it first, then in its place, and on the disk when this returns.

    What a link points to is replaced, and the link stays. A process that is killed may leave a
    hidden ``.harness-*.tmp`` in the folder.

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
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Put the new name on the disk: a file's own fsync keeps its bytes only."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
