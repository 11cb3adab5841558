"""Reading a file that a user names: a regular one, of a limited size, without ever waiting.

A named pipe would hang, and ``/dev/zero`` has no end. Every reader of a user's files goes through
:func:`read_bytes`; ``docs/security.md`` lists the limits.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from harness.errors import HarnessError

FOLDER = "this is a folder"
KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class FileFault(HarnessError):
    """A file cannot be read; ``reason`` says why, without the file's name.

    ``missing`` tells that there is no such file.
    """

    def __init__(self, path: str, reason: str, missing: bool = False) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason, self.missing = reason, missing


def read_bytes(path: str | os.PathLike[str], limit: int, what: str) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; ``what`` says what it should be.

    Raises:
        FileFault: there is no such file, it is no regular file, it is larger, or it cannot be read.
    """
    name = displayed(path)
    try:
        # Non-blocking: a pipe without a writer would hold the call up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if other := other_kind(status):
                raise FileFault(name, other)
            _check_size(name, status.st_size, limit, what)
            with open(descriptor, "rb", closefd=False) as file:
                # One byte more: a file can grow while it is read, and those of /proc say size 0.
                content = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise FileFault(name, "no such file", missing=True) from None
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise FileFault(name, f"cannot be read: {reason}") from None
    except ValueError:
        reason = "this is not a file name: it contains a NUL character"
        raise FileFault(name, reason) from None
    _check_size(name, len(content), limit, what)
    return content


def other_kind(status: os.stat_result) -> str:
    """In words, that a file is a folder or no regular file; empty for a regular one."""
    if stat.S_ISREG(status.st_mode):
        return ""
    if stat.S_ISDIR(status.st_mode):
        return FOLDER
    kind = next((name for test, name in KINDS if test(status.st_mode)), "something else")
    return f"this is not a regular file but {kind}"


def displayed(path: str | os.PathLike[str]) -> str:
    """A path as it can always be printed, whatever bytes its name has."""
    return os.fsencode(Path(path)).decode("utf-8", "backslashreplace")


def _check_size(name: str, size: int, limit: int, what: str) -> None:
    if size > limit:
        raise FileFault(
            name, f"{size:,} bytes are too many for {what}; at most {limit:,} are allowed"
        )
