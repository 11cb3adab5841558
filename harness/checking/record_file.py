"""Record files: JSON Lines, on the disk with each cell that ends: nothing acknowledged is lost.

``docs/records.md`` describes the lines. Several processes may append to one file at once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from harness.checking.record_forms import RESULT_FIELDS, check_fields, check_line
from harness.errors import HarnessError, did_you_mean
from harness.files import kinds
from harness.files.forms import Malformed, read_json
from harness.files.system import flock, opening
from harness.files.user_file import MAX_RECORDS, FileFault, displayed, other_kind, read_bytes, why
from harness.results.findings import VERDICTS

# Bytes of one line: a head of 100,000 specs has a tenth of it.
MAX_LINE = 64 << 20
_TORN = "torn"
# How the line of a cell that has ended starts.
_END = b'{"kind":"end",'


class RecordError(HarnessError):
    """A record file cannot be read or written, or a record is not of the documented form."""


@dataclass(frozen=True, eq=False)
class Records:
    """The lines of a record file, in file order.

    ``torn`` is the text of an incomplete last line, which a writer that was killed left behind;
    None if the file is whole. ``repaired`` are such lines that a later writer has closed.
    """

    lines: tuple[dict[str, Any], ...]
    torn: str | None = None
    repaired: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind, in file order."""
        return [line for line in self.lines if line["kind"] == kind]


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
            self._fd = _opened(self.path)
        except (OSError, FileFault) as error:
            raise RecordError(f"cannot write records to {displayed(path)}: {why(error)}") from None

    def append(self, *records: Mapping[str, Any], durable: bool = True) -> None:
        """Write a line for each, with its ``kind``.

        With ``durable`` they are on the disk when this returns, whatever becomes of the machine;
        without, a cut of power may cost them, and the end of this process does not.

        Raises:
            RecordError: a record is not of the documented form, or the disk is full or broken;
                lines that were written before stay readable.
        """
        line = b"".join(map(encoded, records))
        with self._lock, self._locked_file():
            torn = self._torn_bytes()
            if torn:
                line = b"\n" + encoded({"kind": _TORN, "bytes": torn}) + line
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
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
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


def read_records(path: str | os.PathLike[str], *, complete: bool = False) -> Records:
    """The lines of a record file; an incomplete last line is accepted and reported.

    With ``complete``, every line has the fields of its kind, of their types.

    Raises:
        RecordError: the file cannot be read, or a line other than the last is not a record; the
            message names file and line.
    """
    decode = _complete if complete else _decode
    try:
        content = read_bytes(path, MAX_RECORDS, "records")
    except FileFault as fault:
        raise RecordError(f"cannot read records from {displayed(path)}: {fault.reason}") from None
    *whole, rest = content.split(b"\n")
    lines: list[dict[str, Any]] = []
    repaired: list[str] = []
    for number, text in enumerate(whole):
        follower = whole[number + 1] if number + 1 < len(whole) else rest
        try:
            lines.append(decode(text))
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
            lines.append(decode(rest))
        except Malformed as error:
            # What is cut off is never whole JSON, so that this line is not torn but wrong.
            raise RecordError(f"{path}:{len(whole) + 1}: {error}") from None
        except ValueError:
            torn = rest.decode("utf-8", "replace")
    kept = tuple(line for line in lines if line["kind"] != _TORN)
    return Records(kept, torn, tuple(repaired))


def holds_ended(path: str | os.PathLike[str]) -> bool:
    """Whether a file has a cell that ended, of whatever run; False where there is no file."""
    try:
        with open(path, "rb") as file:
            return any(line.startswith(_END) for line in file)
    except OSError:
        return False


def encoded(record: Mapping[str, Any]) -> bytes:
    """A record as its line.

    Raises:
        RecordError: it is not of the documented form.
    """
    kind = record.get("kind")
    if not isinstance(kind, str):
        raise RecordError(f"a record has no kind: {sorted(map(str, record))} are its fields")
    if kind == "result":
        _check_result(record)
    try:
        text = json.dumps(_plain(record), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(f"a {kind!r} record cannot be written: {error}") from None
    return text.encode("ascii") + b"\n"


def _check_result(record: Mapping[str, Any]) -> None:
    missing = [name for name in RESULT_FIELDS if name not in record]
    if missing:
        raise RecordError(f"a result has no {', '.join(missing)}")
    verdict = record["verdict"]
    if verdict not in VERDICTS:
        raise RecordError(
            f"unknown verdict {verdict!r}{did_you_mean(verdict, VERDICTS)}; allowed are: "
            f"{', '.join(VERDICTS)}"
        )


def _plain(value: Any) -> Any:
    """Return ``value`` in JSON's own types; numbers that JSON has not become what float() reads."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a string")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _decode(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_LINE:
        raise Malformed(f"the line has {len(text):,} bytes; a record has at most {MAX_LINE:,}")
    try:
        line: dict[str, Any] = read_json(text, "the line")
    except ValueError:
        raise ValueError("not JSON; only the last line may be incomplete") from None
    check_line(line)
    return line


def _complete(text: bytes) -> dict[str, Any]:
    line = _decode(text)
    check_fields(line)
    return line


def _tells_of_torn(text: bytes, torn: bytes) -> bool:
    """Whether a writer that found the line ``torn`` has left word of it in this line."""
    with contextlib.suppress(ValueError):
        line = _decode(text)
        return line["kind"] == _TORN and line.get("bytes") == len(torn)
    return False
