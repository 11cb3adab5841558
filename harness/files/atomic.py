"""Atomic file writes: after a crash, a file has either its old or its new content.

New content is written to a hidden, locked file in the folder of the target. The file is renamed
when it is complete. If the process is killed, :func:`sweep` later removes the hidden file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex

from harness.errors import UsageError
from harness.files.system import POSIX, flock, opening

# The age in seconds from which an unlocked hidden file is treated as left by a killed process.
LEFT_OVER = 60.0
# The start of the hidden names: folders, files that a library writes, and other files.
FOLDERS, FILES, PREFIX, SUFFIX = ".harness-export-", ".harness-part-", ".harness-", ".tmp"
PATTERNS = (f"{PREFIX}*{SUFFIX}", f"{FOLDERS}*", f"{FILES}*")


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write ``parts`` one after another to a file, atomically, and flush them to disk.

    A symbolic link stays, and the file that it points to is replaced.

    Raises:
        OSError: the file cannot be written, or is not a regular file (a device, a folder). An old
            file is unchanged.
    """
    try:
        # Resolve symbolic links first, because a rename would replace the link.
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            # A rename would replace /dev/null by a regular file.
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    except ValueError as error:  # a NUL character
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    with _replacing(target, f"{PREFIX}{token_hex(8)}{SUFFIX}") as (handle, _):
        for part in parts:
            remaining = memoryview(part)
            while remaining:  # a single call of the system takes at most 2 GiB
                remaining = remaining[os.write(handle, remaining) :]
        os.fsync(handle)


@contextlib.contextmanager
def call_if_written(path: Path, tell: Callable[[], object]) -> Iterator[None]:
    """Call ``tell`` after the ``with`` block if the block has replaced the file ``path``. This
    holds even if the block was interrupted."""
    before = _identity(path)
    try:
        yield
    finally:
        if _identity(path) != before:
            tell()


def _identity(path: Path) -> int | None:
    """Return a number (the inode) that identifies the content of a file, because every atomic write
    changes it. Return None if there is no file."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield the path of a new file for writing. When the ``with`` block ends without an error, this
    file is renamed to ``path``, and replaces an existing file.

    The new file's name has the same suffix as ``path``, because some libraries choose the format by
    the suffix.
    """
    with _replacing(path, f"{FILES}{token_hex(8)}{path.suffix}") as (_, new):
        yield new
        with new.open("rb+") as file:  # a library may have replaced the file by a new file
            os.fsync(file.fileno())


@contextlib.contextmanager
def staging(place: Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``place``, which is deleted after the ``with`` block.

    Inside the block, the caller writes files to the folder. When they are complete, the caller
    moves them to their final places.

    Raises:
        UsageError: the folder cannot be made.
    """
    sweep(place.parent)
    folder = place.parent / f"{FOLDERS}{token_hex(8)}"
    try:
        folder.mkdir(0o700)
        handle = _open_folder(folder)
    except OSError as error:
        raise UsageError(f"cannot write {place}: {error.strerror}") from None
    try:
        if handle is not None:
            _claim(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the hidden temporary files that killed processes have left in a folder."""
    for pattern in PATTERNS:
        for path in folder.glob(pattern):
            # Ignore any error: another process uses the file, or the file is not from the harness.
            with contextlib.suppress(OSError):
                _remove_left_over(path)


def sync_folder(folder: Path) -> None:
    """Flush the names of new files in a folder to disk. This is needed in addition to the fsync of
    each file, which flushes only the file's content.

    Do nothing if the folder is not readable, or the system has no fsync for folders.
    """
    try:
        handle = _open_folder(folder)
    except PermissionError:
        return
    if handle is None:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _open_folder(folder: Path) -> int | None:
    """Return a file descriptor of a folder; None on Windows, which opens only files."""
    if not POSIX:
        return None
    return os.open(folder, opening("RDONLY", "DIRECTORY", "CLOEXEC"))


@contextlib.contextmanager
def _replacing(target: Path, name: str) -> Iterator[tuple[int, Path]]:
    """Yield the handle and the path of a new, open and locked file next to ``target``. It replaces
    ``target`` when the ``with`` block ends.

    The file stays locked until then. If the process dies, the system releases the lock, so that
    :func:`sweep` can remove the file.
    """
    new = target.with_name(name)
    # mkstemp would make the file readable only by the owner; here the umask decides.
    handle = os.open(new, opening("RDWR", "CREAT", "EXCL", "CLOEXEC"), 0o666)
    with contextlib.ExitStack() as open_file:
        open_file.callback(os.close, handle)
        try:
            _claim(handle)
            yield handle, new
            if not POSIX:
                open_file.close()
            os.replace(new, target)
        except BaseException:
            open_file.close()
            with contextlib.suppress(OSError):  # report the first error
                os.unlink(new)
            raise
    sync_folder(target.parent)


def _claim(handle: int) -> None:
    with contextlib.suppress(OSError):  # some file systems have no locks
        flock(handle, "EX", "NB")


def _remove_left_over(path: Path) -> None:
    flags = opening("RDONLY", "NONBLOCK", "NOFOLLOW", "CLOEXEC")
    handle = os.open(path, flags)  # does not wait for a pipe and does not follow a link
    try:
        flock(handle, "EX", "NB")
        status = os.fstat(handle)
        if time.time() - status.st_mtime <= LEFT_OVER:
            return
        if stat.S_ISREG(status.st_mode):
            path.unlink()
        elif stat.S_ISDIR(status.st_mode) and path.name.startswith(FOLDERS):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)
