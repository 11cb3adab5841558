"""The right to write a file, which one process has at a time and loses with its life.

A lock is on a hidden file beside the one that is meant, since that one need not be there yet and
is replaced by every write. The system releases it when the process ends, however it ends; a lock
file that a killed process has left is taken over by the next.
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
from harness.files.system import flock, opening
from harness.files.user_file import displayed

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
HOLDER = re.compile(rb"process (\d{1,10}) on (\S{0,255})\n")


@contextlib.contextmanager
def held(path: Path, instead: str = "give another --weights") -> Iterator[None]:
    """The sole right to write a file, there or not, until the block is left.

    On file systems that know no locks, nothing is held. ``instead`` is what else can be done.

    Raises:
        UsageError: another process has it; says which, and what to do. Or a lock cannot be made.
    """
    lock = _place(path)
    try:
        handle = _locked(lock)
    except BlockingIOError:
        raise UsageError(_busy(path, lock, instead)) from None
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise UsageError(
            f"{displayed(path)}: the lock beside it, {lock.name}, cannot be taken: {reason}"
        ) from None
    try:
        yield
    finally:
        # Before it is released, so that nobody can have it under this name.
        with contextlib.suppress(OSError):
            os.unlink(lock)
        os.close(handle)


def check_free(path: Path) -> None:
    """:class:`UsageError` if another process has the right to write a file; takes nothing."""
    lock = _place(path)
    with contextlib.suppress(OSError):  # there is none, or it is for :func:`held` to complain
        handle = _open(lock, 0)
        try:
            flock(handle, "SH", "NB")
        except BlockingIOError:
            raise UsageError(_busy(path, lock)) from None
        finally:
            os.close(handle)


def _place(path: Path) -> Path:
    """Of a length that is allowed however long the name is, and the same for all links to it."""
    target = Path(os.path.realpath(path))
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.parent / f".harness-{name}.lock"


def _open(lock: Path, flags: int) -> int:
    """A regular file; :class:`OSError` for what is none. Neither waits nor follows a link."""
    flags |= opening("RDWR", "NOFOLLOW", "NONBLOCK", "CLOEXEC")
    handle = os.open(lock, flags, 0o644)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or (status.st_size and not _holder(handle)):
        os.close(handle)
        raise OSError(errno.EEXIST, "a file that is not a lock has its name")
    return handle


def _locked(lock: Path) -> int:
    """Return the lock's file, open, locked and with this process's name in it."""
    while True:
        handle = _open(lock, os.O_CREAT)
        try:
            try:
                flock(handle, "EX", "NB")
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            # The last holder may have removed it meanwhile: then this is nobody's file any more.
            if _is_still(handle, lock):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
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
    """Who wrote a lock file, in words; empty if it is none."""
    found = HOLDER.fullmatch(os.pread(handle, 1024, 0))
    return f"process {found[1].decode()} on {found[2].decode('ascii', 'replace')}" if found else ""


def _busy(path: Path, lock: Path, instead: str = "give another --weights") -> str:
    """Who has the right, and what to do."""
    who = ""
    with contextlib.suppress(OSError):
        handle = _open(lock, 0)
        who = _holder(handle)
        os.close(handle)
    return (
        f"{displayed(path)} is being written by {who or 'another process'}: wait for it to end, "
        f"stop it, or {instead}"
    )
