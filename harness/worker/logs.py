"""The output of worker processes."""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading

LOG_TAIL = 64 << 10
"""Bytes of a log that are kept: the last ones."""

_LOG_ON_DISK = 16 << 20
# Of linux/falloc.h: a part of a file gives its blocks back, and the rest stays where it is.
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
# A worker that still prints after so many looks will print the tail anew.
_READ_AGAIN = 10
# Of struct stat, in which a block is of so many bytes on every file system.
_BLOCK = 512


def _has_freed(handle: int, size: int) -> bool:
    """Free the first bytes of a file; return whether its file system can."""
    fallocate = ctypes.CDLL(None).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    return bool(fallocate(handle, _KEEP_SIZE | _PUNCH_HOLE, 0, size) == 0)


class Log:
    """The output of a worker: a file without a name; its tail is kept, and the rest counted.

    Having no name, it is gone with the last process that holds it, however that one ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed by `close`)
        self._tail = b""
        self._dropped = 0
        self._lock = threading.Lock()
        import fcntl

        # With O_APPEND the worker goes on at the new end after the file was cut.
        flags = fcntl.fcntl(self.fileno(), fcntl.F_GETFL)
        fcntl.fcntl(self.fileno(), fcntl.F_SETFL, flags | os.O_APPEND)

    def fileno(self) -> int:
        return self._file.fileno()

    def clear(self) -> None:
        """Forget what was printed so far."""
        with self._lock:
            os.ftruncate(self.fileno(), 0)
            self._tail = b""
            self._dropped = 0

    def watch(self) -> None:
        """Free the start of the file if it has grown large; call this often while the worker runs.

        What is printed in the meantime is kept, where the file system has holes.
        """
        with self._lock:
            if self._file.closed:
                return
            found = os.fstat(self.fileno())
            if found.st_blocks * _BLOCK <= _LOG_ON_DISK:
                return
            size = found.st_size
            if _has_freed(self.fileno(), size - LOG_TAIL):
                return
            # The file system has no holes.
            for _ in range(_READ_AGAIN):
                read, self._tail = size, self._read_tail(size)
                size = os.fstat(self.fileno()).st_size
                if size == read:  # the worker may be at its last words just now
                    break
            # What is written between that look and this line is neither counted nor kept.
            os.ftruncate(self.fileno(), 0)
            self._dropped += size

    def read(self) -> tuple[str, int]:
        """The tail of what was printed since ``clear``, and the number of bytes in all."""
        with self._lock:
            size = os.fstat(self.fileno()).st_size
            tail = (self._tail + self._read_tail(size))[-LOG_TAIL:]
            return tail.decode("utf-8", "replace"), self._dropped + size

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _read_tail(self, size: int) -> bytes:
        return os.pread(self.fileno(), LOG_TAIL, max(0, size - LOG_TAIL))
