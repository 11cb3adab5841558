"""Reader of untrusted zip archives. A file in an archive is loaded only if its declared size is
allowed."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError, did_you_mean, shorten
from harness.files.user_file import MAX_WEIGHTS, FileFault, displayed, opened

# The most bytes of an archive's list of parts: enough for about 50,000 parts.
LISTED = 1 << 22
# The most bytes of a part that describes arrays, such as a state_dict's pickle or a configuration.
DESCRIBED = 1 << 22
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The exceptions that zipfile raises for a damaged archive; RuntimeError means an encrypted archive.
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError),
    *(RuntimeError, KeyError, NotImplementedError, MemoryError),
)


class Damaged(Exception):
    """Error: an archive, or a file in it, cannot be read. The message is the end of a sentence,
    e.g. "its list of parts is too long"; callers put the name of the file before it."""


class _Listing:
    """A file object from which zipfile reads an archive. It limits the number of bytes that zipfile
    may read while it reads the list of contents."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.limited = file, True

    def read(self, size: int = -1) -> bytes:
        if not self.limited:
            return self.file.read(size)
        # If zipfile reads without a size, it reads to the end of the file, which is then near.
        content = self.file.read(LISTED + 1 if size < 0 else min(size, LISTED + 1))
        if len(content) > LISTED:
            raise Damaged("its list of parts is too long")
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Archive:
    """An open zip archive. A part is a file in the archive, e.g. an array."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.names = archive.namelist()

    def part(self, name: str, limit: int) -> bytes:
        """Return the content of a file in the archive. The file has at most ``limit`` bytes. Raises
        :class:`Damaged`."""
        return self._read(name, limit, whole=True)

    def start(self, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of a file in the archive, or the whole file if it is
        shorter.

        Raises :class:`Damaged`.
        """
        return self._read(name, limit, whole=False)

    def stream(self, name: str, limit: int) -> IO[bytes]:
        """Open a file in the archive for reading.

        An uncompressed file is read from the archive. A compressed file is first decompressed to
        memory, if it has at most ``limit`` bytes. Raises :class:`Damaged`.
        """
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
                f"{shorten(name)} has {info.file_size:,} bytes; at most {limit:,} are allowed"
            )
        if info.compress_type not in METHODS:
            raise Damaged(f"{shorten(name)} has an unsupported compression")
        with _undamaged(name), self.archive.open(info) as part:
            return part.read(min(info.file_size, limit))


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    """Turn errors of zipfile into :class:`Damaged` inside the ``with`` block, which reads the file
    ``name`` in the archive."""
    try:
        yield
    except DAMAGED as error:
        # zipfile's messages repeat names from the archive, which can be very long.
        raise Damaged(f"{shorten(name)} is damaged: {shorten(str(error), 200)}") from None


@contextmanager
def archive(path: Path, what: str) -> Iterator[Archive]:
    """Open a zip archive; its files can be read inside the ``with`` block.

    Raises:
        FileFault: the file cannot be read; ``what`` is the expected kind of file.
        Damaged: the file is not an archive.
    """
    with opened(path, MAX_WEIGHTS, what) as file:
        listing = _Listing(file)
        try:
            zip_file = zipfile.ZipFile(listing)
        except DAMAGED as error:
            raise Damaged(shorten(str(error), 200)) from None
        listing.limited = False
        with zip_file:
            yield Archive(zip_file)


@contextmanager
def reading(path: Path, as_what: str, hint: str) -> Iterator[None]:
    """Turn errors about an unreadable file into :class:`UsageError`, inside the ``with`` block.

    The message contains ``as_what``, the expected kind of file, and ``hint``, which says what the
    user can do.

    Raises:
        UsageError: the file is damaged, or cannot be read.
    """
    try:
        yield
    except (Damaged, FileFault) as error:
        cause = error.reason if isinstance(error, FileFault) else error
        message = f"{displayed(path)} cannot be read as {as_what}: {cause}; {hint}"
        raise UsageError(message) from error


# Check of a framework's file against a model, before its arrays are loaded.
#
# The declared names, shapes and dtypes are compared before memory is allocated for an array.

SHOWN = 5
FLOATS = ("float32", "float64")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
# The starts of dtypes of safetensors that numpy has only if, for example, JAX has loaded ml_dtypes.
EXTENSIONS = ("BF", "F4_", "F6_", "F8_")


@dataclass(frozen=True)
class Declared:
    """An array that is still in its file. ``shape`` and ``dtype`` are what the file declares; the
    function ``load`` loads the array."""

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Array]


def bytes_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of bytes of arrays with these shapes in float64."""
    return 8 * sum(math.prod(shape) for shape in shapes.values())


def check_names(path: Path, found: Iterable[str], wanted: Iterable[str]) -> None:
    """Check the keys of the arrays in a file. Raise :class:`UsageError` if the ``found`` keys lack
    a ``wanted`` key of the model, or include an unknown key."""
    found, wanted = list(found), list(wanted)
    found_set, wanted_set = set(found), set(wanted)
    missing, unknown = (
        [k for k in wanted if k not in found_set],
        [k for k in found if k not in wanted_set],
    )
    if missing or unknown:
        parts = [f"the file has no {_shorten_list(missing)}"] if missing else []
        if unknown:
            parts.append(
                f"the model has no {_shorten_list(unknown)}{did_you_mean(unknown[0], missing)}"
            )
        raise UsageError(f"{displayed(path)} does not fit the model: {'; '.join(parts)}")


def read_arrays(
    path: Path,
    found: Mapping[str, Declared],
    wanted: Mapping[str, tuple[int, ...]],
    integers: Container[str] = (),
) -> dict[str, Array]:
    """Check the declared shapes and dtypes of all arrays, then load the ``wanted`` arrays in C
    order. ``found`` maps each key to an array in the file, and ``wanted`` maps each key to its
    shape in the model. ``integers`` has the keys whose arrays hold integers; these arrays become
    int64.

    Raises :class:`UsageError` for missing or unknown keys, for wrong shapes or dtypes, and for an
    array that differs from its declaration.
    """
    check_names(path, found, wanted)
    check_declared(path, found, wanted, integers)
    arrays = {}
    for key, shape in wanted.items():
        array = np.array(found[key].load(), order="C")
        if (array.shape, str(array.dtype)) != (shape, found[key].dtype):
            raise UsageError(f"{displayed(path)}: {key} differs from its declaration in the file")
        arrays[key] = array.astype(np.int64) if key in integers else array
    return arrays


def check_declared(
    path: Path,
    found: Mapping[str, Declared],
    wanted: Mapping[str, tuple[int, ...]],
    integers: Container[str] = (),
) -> None:
    """Raise :class:`UsageError` if the declared shape of an array is not the model's, if its dtype
    is neither float32 nor float64 (for keys in ``integers``: not an integer dtype), or if the float
    arrays have different dtypes."""
    name = displayed(path)
    for key, shape in wanted.items():
        if found[key].shape != shape:
            raise UsageError(
                f"{name}: {key}: expected shape {list(shape)}, found "
                f"{shorten(str(list(found[key].shape)))} "
                "(--size sets sizes that differ from the spec's)"
            )
        dtype = found[key].dtype
        allowed = INTEGERS if key in integers else FLOATS
        if dtype not in allowed:
            raise UsageError(f"{name}: {key} is {dtype}; allowed are {' and '.join(allowed)}")
    dtypes = sorted({found[key].dtype for key in wanted if key not in integers})
    if len(dtypes) > 1:
        raise UsageError(f"{name} has {' and '.join(dtypes)}; all arrays must have the same dtype")


def _shorten_list(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(shorten, names[:SHOWN])) + more
