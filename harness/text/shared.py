"""A long vector that several processes read, held once: a file without a name, and mapped.

Having no name, it is gone with the last process that holds it, however that one ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError


class Shared:
    """A vector of numbers ``[length]``, read-only, that other processes may map too.

    It is written in ``pieces`` of one dtype, so that no process holds it in memory of its own:
    the kernel keeps its pages once for all, and may drop them where memory is short.

    Raises:
        UsageError: the folder of temporary files has no room for it.
    """

    def __init__(self, pieces: Iterable[Array]) -> None:
        dtype = np.dtype(np.uint8)
        with contextlib.ExitStack() as undo:
            try:
                file = undo.enter_context(tempfile.TemporaryFile(buffering=0))
            except OSError as error:
                raise _no_room(error) from None
            for piece in pieces:
                dtype = piece.dtype
                _write(file.fileno(), np.ascontiguousarray(piece).data.cast("B"))
            # Of its own: it is open for as long as others may ask for it.
            self._handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._handle)
        self.array = _map(self._handle, dtype)

    def __len__(self) -> int:
        return len(self.array)

    def told(self) -> dict[str, str]:
        """The way to the vector for :func:`mapped` in another process, while this object lives."""
        place = f"/proc/{os.getpid()}/fd/{self._handle}"
        return {"place": place, "dtype": self.array.dtype.str}


def mapped(told: Mapping[str, str]) -> Array:
    """Return the vector of another process, where it lies.

    Raises:
        OSError: that process has ended.
    """
    handle = os.open(told["place"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _map(handle, np.dtype(told["dtype"]))
    finally:
        os.close(handle)  # the mapping stays


def _map(handle: int, dtype: np.dtype[Any]) -> Array:
    if not os.fstat(handle).st_size:
        return np.empty(0, dtype)  # which the kernel would not map
    return np.frombuffer(mmap.mmap(handle, 0, access=mmap.ACCESS_READ), dtype)


def _write(handle: int, content: memoryview) -> None:
    """Written and not stored into a mapping: a full disk is then an error, and not a signal."""
    try:
        while content:
            content = content[os.write(handle, content) :]
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> UsageError:
    return UsageError(
        f"the text cannot be laid out in the folder of temporary files: {error.strerror or error}; "
        "free some room there, or name another folder in the environment variable TMPDIR"
    )
