"""Reader of untrusted npz files, which checks sizes before it allocates memory.

Pickled objects are rejected. A file of 3 MB can expand to arrays of 3 GB, or declare any shape. So
the reader looks at the header of each array first, and the declared shape must match the number of
bytes.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from harness.arrays import Array, ArrayDict
from harness.errors import shorten

MOST_ARRAYS = 10_000
MOST_AXES = 32
INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
DTYPES = frozenset({*INTEGERS, "float16", "float32", "float64", "bool"})
SUFFIX = ".npy"
# Errors of zipfile for an archive that is damaged or not an archive.
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
# Errors of numpy's header reader; a header is Python text.
UNREADABLE = (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError)
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(content: bytes, limit: int) -> ArrayDict:
    """Return the arrays of an npz file by name. ``content`` has the bytes of the file. All arrays
    together may have at most ``limit`` bytes.

    Raises:
        ValueError: the file is not an npz file, is damaged, larger than the limit, or contains
            other data.
    """
    if content.startswith(npy.MAGIC_PREFIX):
        raise ValueError("it is an npy file: a single array without a name")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            _check_members(members, limit)
            return {m.filename.removesuffix(SUFFIX): _array(archive, m) for m in members}
    except BROKEN as error:
        raise ValueError(f"it is not an npz file, or is damaged: {shorten(str(error))}") from None


def _check_members(members: list[zipfile.ZipInfo], limit: int) -> None:
    if len(members) > MOST_ARRAYS:
        raise ValueError(
            f"{len(members):,} arrays are too many; at most {MOST_ARRAYS:,} are allowed"
        )
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError("it has two arrays with the same name")
    for name in names:
        if not name.endswith(SUFFIX):
            raise ValueError(f"it contains {shorten(name)!r}, which is not an array")
    total = sum(member.file_size for member in members)
    if total > limit:
        raise ValueError(f"its arrays have {total:,} bytes; at most {limit:,} are allowed")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    name = shorten(member.filename)
    with archive.open(member) as file:
        shape, fortran, dtype = _header(name, file)
        if dtype.name not in DTYPES:
            raise ValueError(f"{name!r} has dtype {dtype}; allowed are {', '.join(sorted(DTYPES))}")
        if len(shape) > MOST_AXES:
            raise ValueError(f"{name!r} has too many axes: {len(shape)}")
        needed = math.prod(shape) * dtype.itemsize
        if needed > member.file_size:
            raise ValueError(
                f"{name!r} is cut off: shape {list(shape)} of {dtype} takes {needed:,} bytes"
            )
        content = file.read()
    if len(content) != needed:
        raise ValueError(
            f"{name!r} has {len(content):,} bytes; shape {list(shape)} takes {needed:,}"
        )
    flat = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(name: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"{name!r} has an unknown npy version: {version}")
    try:
        # numpy limits the length and uses literal_eval, so no code of the file runs.
        shape, fortran, dtype = HEADERS[version](file)
    except UNREADABLE as error:
        raise ValueError(f"{name!r} has an unreadable header: {type(error).__name__}") from None
    if any(length < 0 for length in shape):
        raise ValueError(f"{name!r} has an invalid shape: {list(shape)}")
    return shape, fortran, dtype
