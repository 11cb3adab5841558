"""Reader of files that a user names: only regular files, with a size limit.

Reading a named pipe could wait forever, and ``/dev/zero`` has no end. Every reader of a user's
files uses this module; ``docs/security.md`` lists the limits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from harness.errors import HarnessError
from harness.files.system import memory, opening

MIB, GIB = 1 << 20, 1 << 30
# The size limit of each kind of file, in bytes. Weights need their size in memory, and the same for
# the worker; hostile JSON can take many times its size.
MAX_WEIGHTS = min(64 * GIB, memory() // 2)
MAX_HEADER = 64 * MIB  # JSON header of weights, with the vocabulary and the history
MAX_TEXT = 4 * GIB  # the character indices and the row order take the same memory again
MAX_RECORDS = GIB
MAX_RESULTS = 64 * MIB
MAX_PROGRAM = 64 * MIB  # of a reproducer
MAX_ARRAYS = GIB
MAX_TABLE = 4 * GIB  # training arrays, compressed or not
MAX_INPUTS = GIB  # arrays of a batch, compressed or not
PIECE = MIB

FOLDER = "this is a folder"
# The bytes of the first read of a file that does not report its size, such as a file in /proc.
BLOCK = 1 << 16
NUL = "this is not a file name: it contains a NUL character"
KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class FileFault(HarnessError):
    """Error: a file cannot be read. ``reason`` says why, without the file's name.

    ``missing`` is True if there is no such file.
    """

    def __init__(self, path: str, reason: str, missing: bool = False) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason, self.missing = reason, missing


def read_bytes(path: str | os.PathLike[str], limit: int, what: str) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes. In errors, ``what`` says
    what the file should contain, e.g. "inputs".

    Raises:
        FileFault: there is no such file, or it is not a regular file, is larger, or cannot be read.
    """
    name = displayed(path)
    with opened(path, limit, what) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            content = _content(file, size or BLOCK, limit)
        except MemoryError:
            raise FileFault(name, f"its {size:,} bytes do not fit into memory") from None
    _check_size(name, len(content), limit, what)
    return content


def read_pieces(path: str | os.PathLike[str], limit: int, what: str) -> Iterator[bytes]:
    """Yield the content of a file in pieces of :data:`PIECE` bytes; the last piece may be shorter.

    Raises:
        FileFault: there is no such file, or it is not a regular file, cannot be read, or is larger
            than ``limit`` bytes (even if it grows while it is read).
    """
    count = 0
    with opened(path, limit, what) as file:
        while piece := file.read(PIECE):
            count += len(piece)
            _check_size(displayed(path), count, limit, what)
            yield piece


def read_head(path: str | os.PathLike[str], count: int) -> bytes:
    """Return the first ``count`` bytes of a regular file, or all bytes of a shorter file.

    Raises:
        FileFault: there is no such file, it is not a regular file, or it cannot be read.
    """
    with _opened(path) as file:
        return file.read(count) or b""


def read_tail(path: str | os.PathLike[str], count: int) -> bytes:
    """Return the last ``count`` bytes of a regular file, or all bytes of a shorter file.

    Raises:
        FileFault: there is no such file, it is not a regular file, or it cannot be read.
    """
    with _opened(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - count))
        return file.read(count) or b""


def check_regular(path: str | os.PathLike[str], limit: int, what: str) -> None:
    """Check that a file is regular and has at most ``limit`` bytes, before other code reads it. In
    errors, ``what`` says what the file should contain.

    Raises:
        FileFault: there is no such file, or it is not a regular file, is larger, or cannot be read.
    """
    with opened(path, limit, what):
        pass


@contextmanager
def opened(path: str | os.PathLike[str], limit: int, what: str) -> Iterator[BinaryIO]:
    """Open a regular file of at most ``limit`` bytes for reading, during the ``with`` block. In
    errors, ``what`` says what the file should contain.

    Raises:
        FileFault: there is no such file, or it is not a regular file, is larger, or cannot be read.
    """
    with _opened(path) as file:
        _check_size(displayed(path), os.fstat(file.fileno()).st_size, limit, what)
        yield file


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file during the ``with`` block. Errors of the operating system become
    :class:`FileFault`."""
    name = displayed(path)
    try:
        try:
            # Non-blocking, because opening a pipe without a writer would wait forever.
            descriptor = os.open(path, opening("RDONLY", "NONBLOCK", "NOCTTY", "CLOEXEC"))
        except FileNotFoundError:
            raise FileFault(name, "no such file", missing=True) from None
        except ValueError:
            raise FileFault(name, NUL) from None
        try:
            if other := other_kind(os.fstat(descriptor)):
                raise FileFault(name, other)
            with open(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise FileFault(name, f"cannot be read: {reason}") from None


def _content(file: BinaryIO, expected: int, limit: int) -> bytes:
    """Return the whole content of a file. If the file has more than ``limit`` bytes, return the
    first ``limit`` + 1 bytes, from whose number the caller knows this.

    The first read asks for ``expected`` bytes (the file's size) and one more, which shows whether
    the file has grown. It does not ask for ``limit`` bytes, because Python allocates as many bytes
    as a read asks for.
    """
    count = min(expected, limit) + 1
    # A non-blocking read of a /proc file may return None.
    content = file.read(count) or b""
    while len(content) == count <= limit:
        count = min(2 * count, limit + 1)
        content += file.read(count - len(content)) or b""
    return content


def other_kind(status: os.stat_result) -> str:
    """Return a text that says why a path is not a regular file, e.g. because it is a folder; "" for
    a regular file."""
    if stat.S_ISREG(status.st_mode):
        return ""
    if stat.S_ISDIR(status.st_mode):
        return FOLDER
    kind = next((name for test, name in KINDS if test(status.st_mode)), "something else")
    return f"this is not a regular file but {kind}"


def displayed(path: str | os.PathLike[str]) -> str:
    """Return a path as printable text on one line, even if its name has unusual bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\n", "\\n")


def why(error: OSError | FileFault) -> str:
    """Return the reason of an error as text: why a file cannot be used, without the file's name."""
    if isinstance(error, FileFault):
        return error.reason
    return error.strerror or str(error)


def _check_size(name: str, size: int, limit: int, what: str) -> None:
    if size > limit:
        raise FileFault(
            name, f"{size:,} bytes are too many for {what}; at most {limit:,} are allowed"
        )
