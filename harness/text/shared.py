"""Arrays in shared memory: a long vector in an unnamed temporary file, which several processes map
into their memory.

The file has no name, so it disappears when the last process that has it open ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError
from harness.files.system import open_shared_file, reopen_shared_file


class Shared:
    """A read-only vector of numbers ``[length]`` that other processes can map into their memory.

    The ``pieces`` of the vector must have the same dtype; they are written to a file one after
    another. All processes share the memory that holds this file, and the kernel can free the memory
    if it runs short.

    Raises:
        UsageError: the disk of the folder for temporary files is full.
    """

    def __init__(self, pieces: Iterable[Array]) -> None:
        dtype = np.dtype(np.uint8)
        with contextlib.ExitStack() as undo:
            try:
                file, self._place = open_shared_file()
            except OSError as error:
                raise _disk_error(error) from None
            undo.callback(file.close)
            for piece in pieces:
                dtype = piece.dtype
                _write(file.fileno(), np.ascontiguousarray(piece).data.cast("B"))
            self.array = _map(file.fileno(), dtype)
            # Keep the file open as long as other processes may map it.
            weakref.finalize(self, undo.pop_all().close)

    def __len__(self) -> int:
        return len(self.array)

    def describe_location(self) -> dict[str, str]:
        """Return the location of the vector (a path and the dtype), which other processes pass to
        :func:`map_vector`. It is valid as long as this object lives."""
        return {"place": self._place, "dtype": self.array.dtype.str}


def map_vector(location: Mapping[str, str]) -> Array:
    """Return the vector of another process, mapped into the memory of this process. ``location`` is
    the result of :meth:`Shared.describe_location` in the other process.

    Raises:
        OSError: the process that created the vector has ended.
    """
    handle = reopen_shared_file(location["place"])
    try:
        return _map(handle, np.dtype(location["dtype"]))
    finally:
        os.close(handle)  # the mapping stays


def _map(handle: int, dtype: np.dtype[Any]) -> Array:
    if not os.fstat(handle).st_size:
        return np.empty(0, dtype)  # the kernel cannot map an empty file
    return np.frombuffer(mmap.mmap(handle, 0, access=mmap.ACCESS_READ), dtype)


def _write(handle: int, content: memoryview) -> None:
    """Write bytes to the file descriptor ``handle`` with ``os.write``, which raises an error if the
    disk is full. Writing to mapped memory would kill the process with a signal instead."""
    try:
        while content:
            content = content[os.write(handle, content) :]
    except OSError as error:
        raise _disk_error(error) from None


def _disk_error(error: OSError) -> UsageError:
    return UsageError(
        f"the text cannot be stored in the folder for temporary files: {error.strerror or error}; "
        "free some space there, or set the environment variable TMPDIR to a different folder"
    )
