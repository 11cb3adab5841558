"""Lock that lets only one process at a time write a file.

The locked file is a hidden file next to the target, because the target may not exist yet, and every
write replaces it. The system releases the lock when the process ends, even if it is killed. The
next process takes over a lock file that was left behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UsageError
from harness.files.system import POSIX, flock, opening, read_at
from harness.files.user_file import displayed

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
HOLDER = re.compile(rb"process (\d{1,10}) on (\S{0,255})\n")


@contextlib.contextmanager
def hold_lock(path: Path, instead: str = "give another --weights") -> Iterator[None]:
    """Lock a file during the ``with`` block, so that no other process writes it. There may be no
    such file yet.

    On file systems without locks, nothing is locked. ``instead`` says in the error message what the
    user can do.

    Raises:
        UsageError: another process has locked the file, or it cannot be locked.
    """
    lock = _lock_path(path)
    try:
        handle = _open_locked(lock)
    except BlockingIOError:
        raise UsageError(_busy_message(path, lock, instead)) from None
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise UsageError(
            f"{displayed(path)}: its lock file {lock.name} cannot be locked: {reason}"
        ) from None
    try:
        yield
    finally:
        # Remove the file before the release, so that no process can lock it under this name.
        # Windows removes only a file that no process has open.
        if not POSIX:
            os.close(handle)
        with contextlib.suppress(OSError):
            os.unlink(lock)
        if POSIX:
            os.close(handle)


def check_free(path: Path) -> None:
    """Raise :class:`UsageError` if another process has locked a file. The file is not locked."""
    lock = _lock_path(path)
    with contextlib.suppress(OSError):  # no lock file, or an error that :func:`hold_lock` reports
        handle = _open(lock, 0)
        try:
            flock(handle, "SH", "NB")
        except BlockingIOError:
            raise UsageError(_busy_message(path, lock)) from None
        finally:
            os.close(handle)


def _lock_path(path: Path) -> Path:
    """Return the path of the hidden lock file. Its name has a fixed length, and is the same for all
    symbolic links to the target."""
    target = Path(os.path.realpath(path))
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.parent / f".harness-{name}.lock"


def _open(lock: Path, flags: int) -> int:
    """Open a lock file without waiting or following a symbolic link.

    Raise :class:`OSError` if it is not a regular file or not a lock file.
    """
    flags |= opening("RDWR", "NOFOLLOW", "NONBLOCK", "CLOEXEC")
    handle = os.open(lock, flags, 0o644)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or (status.st_size and not _holder(handle)):
        os.close(handle)
        raise OSError(errno.EEXIST, "another file has the name of the lock file")
    return handle


def _open_locked(lock: Path) -> int:
    """Open and lock the lock file, and write the id of this process and the name of this machine to
    it; return the file handle."""
    while True:
        handle = _open(lock, os.O_CREAT)
        try:
            try:
                flock(handle, "EX", "NB")
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            # The last holder may have deleted the file since. Then other processes do not see this
            # lock.
            if _is_still(handle, lock):
                os.ftruncate(handle, 0)
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_still(handle: int, lock: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(lock, follow_symlinks=False))
    return False


def _holder(handle: int) -> str:
    """Return the text in a lock file that says which process has locked it, e.g. ``process 12 on
    my-host``; "" if the file has other content."""
    match = HOLDER.fullmatch(read_at(handle, 1024, 0))
    return f"process {match[1].decode()} on {match[2].decode('ascii', 'replace')}" if match else ""


def _busy_message(path: Path, lock: Path, instead: str = "give another --weights") -> str:
    holder = ""
    with contextlib.suppress(OSError):
        handle = _open(lock, 0)
        holder = _holder(handle)
        os.close(handle)
    return (
        f"{displayed(path)} is being written by {holder or 'another process'}: wait for it to end, "
        f"stop it, or {instead}"
    )
