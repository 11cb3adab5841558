"""Record files: JSON Lines, on the disk with each cell that ends: nothing acknowledged is lost.

``docs/records.md`` describes the lines. Several processes may append to one file at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from harness.errors import HarnessError
from harness.files import kinds
from harness.files.forms import Malformed, formed, plain, read_json
from harness.files.system import flock, opening
from harness.files.user_file import MAX_RECORDS, FileFault, displayed, other_kind, read_bytes, why
from harness.results.lines import FORMS, SCHEMA_VERSION, RecordLine, Torn
from harness.results.records import Records

# Bytes of one line: a head of 100,000 specs has a tenth of it.
MAX_LINE = 64 << 20
# How the line of a cell that has ended starts.
_END = b'{"kind":"end",'


class RecordError(HarnessError):
    """A record file cannot be read or written, or a record is not of the documented form."""


class RecordWriter:
    """Appends to a record file: lines are in it, whole, when ``append`` has returned."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open ``path`` for appending; it is created if it does not exist.

        Raises:
            RecordError: the file cannot be opened, or is something else than records.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            kinds.check_kind(self.path, kinds.RECORDS)
            self._is_new = not self.path.exists()
            self._fd = _opened(self.path)
        except (OSError, FileFault) as error:
            raise RecordError(f"cannot write records to {displayed(path)}: {why(error)}") from None

    def append(self, *lines: RecordLine, durable: bool = True) -> None:
        """Write some lines.

        With ``durable`` they are on the disk when this returns, whatever becomes of the machine;
        without, a cut of power may cost them, and the end of this process does not.

        Raises:
            RecordError: the disk is full or broken; lines that were written before stay readable.
        """
        line = b"".join(encoded(line.plain()) for line in lines)
        with self._lock, self._locked_file():
            torn = self._torn_bytes()
            if torn:
                line = b"\n" + encoded(Torn(bytes=torn).plain()) + line
            try:
                written = os.write(self._fd, line)
                if durable:
                    os.fsync(self._fd)
            except OSError as error:
                raise RecordError(f"cannot write to {self.path}: {error.strerror}") from None
        if written < len(line):
            raise RecordError(
                f"cannot write to {self.path}: only {written} of {len(line)} bytes were taken; "
                "the disk is full, or a limit on file sizes is reached. Earlier lines are whole."
            )

    def close(self) -> None:
        """Close the file; a second call does nothing. Remove a new file to which nothing could be
        written, as on a full disk."""
        if self._fd >= 0:
            if self._is_new and not os.fstat(self._fd).st_size:
                with contextlib.suppress(OSError):
                    self.path.unlink()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _locked_file(self) -> Iterator[None]:
        # Looking for a torn line and appending must not be parted by another writer. Where the
        # file system knows no locks, one append is one write all the same.
        with contextlib.suppress(OSError):
            flock(self._fd, "EX")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                flock(self._fd, "UN")

    def _torn_bytes(self) -> int:
        """The length of an incomplete last line, 0 if the file ends in a whole one."""
        end = position = os.fstat(self._fd).st_size
        while position:
            start = max(0, position - 65536)
            newline = os.pread(self._fd, position - start, start).rfind(b"\n")
            if newline >= 0:
                return end - (start + newline + 1)
            position = start
        return end


def _opened(path: Path) -> int:
    """A regular file to append to, made if it is not there; never waits for a pipe."""
    flags = opening("RDWR", "APPEND", "CREAT", "NONBLOCK", "NOCTTY", "CLOEXEC")
    handle = os.open(path, flags, 0o644)
    # It may have come into being since it was looked at.
    if other := other_kind(os.fstat(handle)):
        os.close(handle)
        raise FileFault(displayed(path), other)
    return handle


def read_records(path: str | os.PathLike[str]) -> Records:
    """The lines of a record file; an incomplete last line is accepted and reported.

    Raises:
        RecordError: the file cannot be read, or a line other than the last is not a record, or
            lacks a field of its kind; the message names file and line.
    """
    try:
        content = read_bytes(path, MAX_RECORDS, "records")
    except FileFault as fault:
        raise RecordError(f"cannot read records from {displayed(path)}: {fault.reason}") from None
    *whole, rest = content.split(b"\n")
    lines: list[RecordLine | None] = []
    repaired: list[str] = []
    for number, text in enumerate(whole):
        follower = whole[number + 1] if number + 1 < len(whole) else rest
        try:
            lines.append(parsed(text))
        except ValueError as fault:
            if not _tells_of_torn(follower, text):
                reason = str(fault)
                if number == 0 and (other := kinds.described(Path(path))) == kinds.SPEC:
                    reason = f"this is {other}, not {kinds.RECORDS.name}"
                raise RecordError(f"{path}:{number + 1}: {reason}") from None
            repaired.append(text.decode("utf-8", "replace"))
    torn = None
    if rest:
        try:
            lines.append(parsed(rest))
        except Malformed as error:
            # What is cut off is never whole JSON, so that this line is not torn but wrong.
            raise RecordError(f"{path}:{len(whole) + 1}: {error}") from None
        except ValueError:
            torn = rest.decode("utf-8", "replace")
    kept = tuple(line for line in lines if line is not None and not isinstance(line, Torn))
    return Records(kept, torn, tuple(repaired))


def holds_ended(path: str | os.PathLike[str]) -> bool:
    """Whether a file has a cell that ended, of whatever run; False where there is no file."""
    try:
        with open(path, "rb") as file:
            return any(line.startswith(_END) for line in file)
    except OSError:
        return False


def encoded(fields: Mapping[str, object]) -> bytes:
    """The bytes of a line of these fields."""
    text = json.dumps(plain(fields), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def parsed(text: bytes) -> RecordLine | None:
    """The line that a text is; None where its kind is not known.

    Raises:
        Malformed: it is too long, or lacks what its kind has.
        ValueError: it is no line of a record file at all.
    """
    if len(text) > MAX_LINE:
        raise Malformed(f"the line has {len(text):,} bytes; a record has at most {MAX_LINE:,}")
    try:
        found = read_json(text, "the line")
    except ValueError:
        raise ValueError("not JSON; only the last line may be incomplete") from None
    if not isinstance(found, dict) or not isinstance(kind := found.get("kind"), str):
        raise ValueError("no record: it has no kind")
    if kind == "head" and found.get("schema") != SCHEMA_VERSION:
        raise ValueError(
            f"schema {found.get('schema')!r} is unknown, and {SCHEMA_VERSION} is what this version "
            "of the harness reads"
        )
    form = FORMS.get(kind)
    return None if form is None else formed(found, form, kind)


def _tells_of_torn(text: bytes, torn: bytes) -> bool:
    """Whether a writer that found the line ``torn`` has left word of it in this line."""
    with contextlib.suppress(ValueError):
        line = parsed(text)
        return isinstance(line, Torn) and line.bytes == len(torn)
    return False
