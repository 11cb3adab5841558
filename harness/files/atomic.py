"""Files that are written whole: a crash at any moment leaves the old content or the new.

What is new is made beside its place, under a hidden name and a lock, and put there once it is
whole. A process that is killed meanwhile may leave it; :func:`sweep` takes that away.
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
from harness.files.system import flock, opening

# Seconds after which what nobody has open is left over from a killed process.
LEFT_OVER = 60.0
# How the hidden names begin: of folders, of files that a library writes, and of other files.
FOLDERS, FILES, PREFIX, SUFFIX = ".harness-export-", ".harness-part-", ".harness-", ".tmp"
PATTERNS = (f"{PREFIX}*{SUFFIX}", f"{FOLDERS}*", f"{FILES}*")


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file: beside it first, then in its place, and on the disk when this returns.

    Its content are the parts, one after the other. What a link points to is replaced, and the link
    stays.

    Raises:
        OSError: the file cannot be written, or is not a regular file (a device, a folder); an old
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
    with _replacing(target, f"{PREFIX}{token_hex(8)}{SUFFIX}") as (handle, _):
        for part in parts:
            left = memoryview(part)
            while left:  # one call of the system takes at most 2 GiB
                left = left[os.write(handle, left) :]
        os.fsync(handle)


@contextlib.contextmanager
def telling(path: Path, tell: Callable[[], object]) -> Iterator[None]:
    """Tell that a file has been written in here, also if an interruption came right after it."""
    before = _identity(path)
    try:
        yield
    finally:
        if _identity(path) != before:
            tell()


def _identity(path: Path) -> int | None:
    """Of what lies there; what is written whole is another file than before."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new file beside ``path`` to write to, which takes its place once it is whole, or never.

    Its name ends as ``path``'s does, because some libraries go by that.
    """
    with _replacing(path, f"{FILES}{token_hex(8)}{path.suffix}") as (_, new):
        yield new
        with new.open("rb+") as file:  # whoever wrote it may have made another of its name
            os.fsync(file.fileno())


@contextlib.contextmanager
def staging(place: Path) -> Iterator[Path]:
    """A folder beside ``place``, so that a rename is all that is left to do.

    Raises:
        UsageError: none can be made.
    """
    sweep(place.parent)
    folder = place.parent / f"{FOLDERS}{token_hex(8)}"
    try:
        folder.mkdir(0o700)
        handle = os.open(folder, opening("RDONLY", "DIRECTORY", "CLOEXEC"))
    except OSError as error:
        raise UsageError(f"cannot write {place}: {error.strerror}") from None
    try:
        _claim(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what is left in a folder of processes that were killed: old, and held by nobody."""
    for pattern in PATTERNS:
        for path in folder.glob(pattern):
            # Of any kind: somebody is writing it, has just put it in its place, or it is not ours.
            with contextlib.suppress(OSError):
                _remove_left_over(path)


def sync_folder(folder: Path) -> None:
    """Put the new name on the disk: a file's own fsync keeps its bytes only.

    Where the folder may not be read, or its file system cannot do that, the name is there all the
    same and reaches the disk when the system sees fit.
    """
    try:
        handle = os.open(folder, opening("RDONLY", "DIRECTORY", "CLOEXEC"))
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _replacing(target: Path, name: str) -> Iterator[tuple[int, Path]]:
    """A new file of that name beside ``target``, open and claimed; at the end it takes its place.

    The claim is held until then, by whatever end the process comes to.
    """
    new = target.with_name(name)
    # Not mkstemp, whose files nobody else may read: here the umask decides.
    handle = os.open(new, opening("RDWR", "CREAT", "EXCL", "CLOEXEC"), 0o666)
    try:
        _claim(handle)
        yield handle, new
        os.replace(new, target)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is to be told
            os.unlink(new)
        raise
    finally:
        os.close(handle)
    sync_folder(target.parent)


def _claim(handle: int) -> None:
    with contextlib.suppress(OSError):  # some file systems know no locks
        flock(handle, "EX", "NB")


def _remove_left_over(path: Path) -> None:
    flags = opening("RDONLY", "NONBLOCK", "NOFOLLOW", "CLOEXEC")
    handle = os.open(path, flags)  # neither waits for a pipe nor goes where a link leads
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
