"""Reading the text of a spec file without ever hanging, or reading what cannot be one."""

import os
import stat
from pathlib import Path

from harness.errors import Place, SpecError, closest

MAX_BYTES = 1 << 20


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file (a byte-order mark is dropped).

    Raises SpecError for a file that is missing, unreadable, not a regular file,
    larger than `MAX_BYTES` or not UTF-8.
    """
    place = Place(displayed(path), 1, 1)
    try:
        _check_file(os.stat(path), place)
        content = _read(path)
    except FileNotFoundError:
        raise SpecError(f"no such file{_neighbour(path)}", place) from None
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise SpecError(f"cannot be read: {reason}", place) from None
    except ValueError:
        raise SpecError("this is not a file name: it contains a NUL character", place) from None
    _check_size(len(content), place)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8-sig", "replace")) + 1
        found = f"0x{content[error.start]:02x} at byte {error.start:,}"
        message = f"this is not UTF-8: found {found}; save the file as UTF-8"
        raise SpecError(message, Place(place.file, line, column)) from None


def displayed(path: Path) -> str:
    """Return a path as it can always be printed, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _check_file(status: os.stat_result, place: Place) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise SpecError("this is a folder; name a .yaml file in it", place)
    if not stat.S_ISREG(status.st_mode):
        raise SpecError("this is not a regular file; save the spec as a .yaml file", place)
    _check_size(status.st_size, place)


def _check_size(size: int, place: Place) -> None:
    if size > MAX_BYTES:
        message = f"{size:,} bytes are too many for a spec; at most {MAX_BYTES:,} are allowed"
        raise SpecError(message, place)


def _read(path: Path) -> bytes:
    # Non-blocking, for a pipe that took the file's place since it was looked at.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(MAX_BYTES + 1) or b""


def _neighbour(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {displayed(folder)!r} either"
    try:
        stems = [entry.stem for entry in folder.iterdir() if entry.suffix == ".yaml"]
    except OSError:
        return ""
    # Stems alone: a common suffix would make any two names look alike.
    stem = closest(path.stem, stems)
    return "" if stem is None else f"; did you mean {stem + '.yaml'!r}?"
