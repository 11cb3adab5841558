"""Archives of strangers: no part of one is read further than it may be long.

What an archive says of itself is read first; a part is taken into memory once it is known to be
no longer than what is wanted of it.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError, did_you_mean, shorten
from harness.files.user_file import MAX_WEIGHTS, FileFault, displayed, opened

# Bytes of an archive's list of its parts, for some 50,000 of them.
LISTED = 1 << 22
# Bytes of what describes arrays: a state_dict's pickle, a configuration.
DESCRIBED = 1 << 22
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What zipfile makes of damage; RuntimeError is for what is encrypted.
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError),
    *(RuntimeError, KeyError, NotImplementedError, MemoryError),
)


class Damaged(Exception):
    """An archive, or a part of one, cannot be read; says why, for the middle of a sentence."""


class _Listing:
    """A file that gives its list of parts only if that is short; then it gives all."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.limited = file, True

    def read(self, size: int = -1) -> bytes:
        if not self.limited:
            return self.file.read(size)
        # Without a number zipfile reads to the end, which is near.
        content = self.file.read(LISTED + 1 if size < 0 else min(size, LISTED + 1))
        if len(content) > LISTED:
            raise Damaged("its list of parts is too long")
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Archive:
    """The parts of an archive by name."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.names = archive.namelist()

    def part(self, name: str, limit: int) -> bytes:
        """A whole part of at most ``limit`` bytes. Raises :class:`Damaged`."""
        return self._read(name, limit, whole=True)

    def start(self, name: str, limit: int) -> bytes:
        """The first ``limit`` bytes of a part, or all. Raises :class:`Damaged`."""
        return self._read(name, limit, whole=False)

    def stream(self, name: str, limit: int) -> IO[bytes]:
        """A part to read in: from its place if it is stored there as it is, else a whole part of
        at most ``limit`` bytes. Raises :class:`Damaged`."""
        info = self._info(name)
        if info.compress_type != zipfile.ZIP_STORED:
            return io.BytesIO(self.part(name, limit))
        with _undamaged(name):
            return self.archive.open(info)

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self.names:
            raise Damaged(f"it has no {shorten(name)}")
        return self.archive.getinfo(name)

    def _read(self, name: str, limit: int, whole: bool) -> bytes:
        info = self._info(name)
        if whole and info.file_size > limit:
            raise Damaged(
                f"{shorten(name)} has {info.file_size:,} bytes, where {limit:,} are the most"
            )
        if info.compress_type not in METHODS:
            raise Damaged(f"{shorten(name)} is compressed in a way that is not read here")
        with _undamaged(name), self.archive.open(info) as part:
            return part.read(min(info.file_size, limit))


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    """Raise :class:`Damaged` for a part that zipfile cannot read."""
    try:
        yield
    except DAMAGED as error:
        # zipfile repeats whatever stands in the place of a name.
        raise Damaged(f"{shorten(name)} is damaged: {shorten(str(error), 200)}") from None


@contextmanager
def archive(path: Path, what: str) -> Iterator[Archive]:
    """The archive in a file, whose parts are read while it is open.

    Raises:
        FileFault: it is not a file that can be read; ``what`` says what it should be.
        Damaged: it is not an archive.
    """
    with opened(path, MAX_WEIGHTS, what) as file:
        listing = _Listing(file)
        try:
            found = zipfile.ZipFile(listing)
        except DAMAGED as error:
            raise Damaged(shorten(str(error), 200)) from None
        listing.limited = False
        with found:
            yield Archive(found)


@contextmanager
def reading(path: Path, as_what: str, hint: str) -> Iterator[None]:
    """While a file is read: what keeps it from that is told, as what, and what to do.

    Raises:
        UsageError: the file is damaged, or cannot be read.
    """
    try:
        yield
    except (Damaged, FileFault) as error:
        cause = error.reason if isinstance(error, FileFault) else error
        told = f"{displayed(path)} cannot be read as {as_what}: {cause}; {hint}"
        raise UsageError(told) from error


# The contents of a framework's file, held against what a model has; then its arrays.
#
# A file is compared by what it declares, before memory is taken for any array of it: the model says
# how many numbers there are.

SHOWN = 5
FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Declared:
    """An array that is still in its file: what it is said to be, and how it is read."""

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Array]


def bytes_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The bytes of arrays of these shapes, in float64."""
    return 8 * sum(math.prod(shape) for shape in shapes.values())


def check_names(path: Path, found: Iterable[str], wanted: Iterable[str]) -> None:
    """The same keys; :class:`UsageError` names the file, what it has, and what was wanted."""
    found, wanted = list(found), list(wanted)
    there, known = set(found), set(wanted)
    missing, unknown = [k for k in wanted if k not in there], [k for k in found if k not in known]
    if missing or unknown:
        parts = [f"it lacks {_some(missing)}"] if missing else []
        if unknown:
            parts.append(f"the model has no {_some(unknown)}{did_you_mean(unknown[0], missing)}")
        raise UsageError(f"{displayed(path)} does not fit the model: {'; '.join(parts)}")


def read_arrays(
    path: Path, found: Mapping[str, Declared], wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """The wanted arrays, C-contiguous, once all are declared as the model has them.

    Raises :class:`UsageError` for other keys and shapes, for dtypes other than one of float32 and
    float64, and for what is not as it was declared.
    """
    check_names(path, found, wanted)
    check_declared(path, found, wanted)
    arrays = {}
    for key, shape in wanted.items():
        array = np.array(found[key].load(), order="C")
        if (array.shape, str(array.dtype)) != (shape, found[key].dtype):
            raise UsageError(f"{displayed(path)}: {key} is not what the file says that it is")
        arrays[key] = array
    return arrays


def check_declared(
    path: Path, found: Mapping[str, Declared], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Shapes, and one dtype of float32 and float64; :class:`UsageError` for others."""
    name = displayed(path)
    for key, shape in wanted.items():
        if found[key].shape != shape:
            raise UsageError(
                f"{name}: {key}: expected shape {list(shape)}, found "
                f"{shorten(str(list(found[key].shape)))} "
                "(other sizes than the spec's are given by --size)"
            )
        dtype = found[key].dtype
        if dtype not in FLOATS:
            raise UsageError(f"{name}: {key} is {dtype}; allowed are float32 and float64")
    dtypes = sorted({found[key].dtype for key in wanted})
    if len(dtypes) > 1:
        raise UsageError(f"{name} holds {' and '.join(dtypes)}; all must be of one dtype")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(shorten, names[:SHOWN])) + more
