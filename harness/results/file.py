"""Reader and writer of record files: JSON Lines, written to disk as soon as each cell ends.

``docs/records.md`` describes the lines. Several processes may append to one file at the same time.
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
from harness.files.system import flock, opening, read_at
from harness.files.user_file import MAX_RECORDS, FileFault, displayed, other_kind, read_bytes, why
from harness.results.lines import FORMS, SCHEMA_VERSION, RecordLine, Torn
from harness.results.records import Records

# The maximum bytes of a line. The head of a run of 100,000 specs needs a tenth of this.
MAX_LINE = 64 << 20
# The start of the line that ends a cell.
_END = b'{"kind":"end",'


class RecordError(HarnessError):
    """Error: a record file cannot be read or written, or contains an invalid record."""


class RecordWriter:
    """A writer that appends whole lines to a record file."""

    def __init__(self, path: str | os.PathLike[str], kind: kinds.FileKind = kinds.RECORDS) -> None:
        """Open ``path``, a file of this ``kind``, for appending; create the file if it does not
        exist.

        Raises:
            RecordError: the file cannot be opened, or is not a record file.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            kinds.check_kind(self.path, kind)
            self._is_new = not self.path.exists()
            self._fd = _open_for_append(self.path)
        except (OSError, FileFault) as error:
            raise RecordError(f"cannot write records to {displayed(path)}: {why(error)}") from None

    def append(self, *lines: RecordLine, durable: bool = True) -> None:
        """Append lines to the file. With ``durable``, the method returns only when the lines are
        safe from a power failure.

        Raises:
            RecordError: the disk is full or broken; earlier lines stay readable.
        """
        line = b"".join(encode_line(line.plain()) for line in lines)
        with self._lock, self._locked_file():
            torn = self._torn_bytes()
            if torn:
                line = b"\n" + encode_line(Torn(bytes=torn).plain()) + line
            try:
                written = os.write(self._fd, line)
                if durable:
                    os.fsync(self._fd)
            except OSError as error:
                raise RecordError(f"cannot write to {self.path}: {error.strerror}") from None
        if written < len(line):
            raise RecordError(
                f"cannot write to {self.path}: only {written} of {len(line)} bytes were written; "
                "the disk is full, or a file-size limit is reached. Earlier lines are intact."
            )

    def close(self) -> None:
        """Close the file, if it is open. Delete a new file that stayed empty."""
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
        # No other writer may append between the search for a torn line and this append. If the file
        # system has no locks, an append is still a single write.
        with contextlib.suppress(OSError):
            flock(self._fd, "EX")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                flock(self._fd, "UN")

    def _torn_bytes(self) -> int:
        """Return the number of bytes of the last line if a killed writer left it incomplete; 0 if
        the last line is complete."""
        end = position = os.fstat(self._fd).st_size
        while position:
            start = max(0, position - 65536)
            newline = read_at(self._fd, position - start, start).rfind(b"\n")
            if newline >= 0:
                return end - (start + newline + 1)
            position = start
        return end


def _open_for_append(path: Path) -> int:
    """Open a regular file for appending, and return its file descriptor. A missing file is created.
    For a named pipe, do not wait for a reader."""
    flags = opening("RDWR", "APPEND", "CREAT", "NONBLOCK", "NOCTTY", "CLOEXEC")
    handle = os.open(path, flags, 0o644)
    # The file may have been created after the check of its kind.
    if other := other_kind(os.fstat(handle)):
        os.close(handle)
        raise FileFault(displayed(path), other)
    return handle


def read_records(
    path: str | os.PathLike[str], forms: Mapping[str, type[RecordLine]] = FORMS
) -> Records:
    """Read the lines of a record file. An incomplete last line is no error; the result contains it.
    ``forms`` maps each kind of line to its class.

    Raises:
        RecordError: the file cannot be read, or a line other than the last is not a valid record;
            the message names file and line.
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
            lines.append(parse_line(text, forms))
        except ValueError as fault:
            if not _reports_torn(follower, text):
                reason = str(fault)
                if number == 0 and (other := kinds.describe(Path(path))) == kinds.SPEC:
                    reason = f"this is {other}, not {kinds.RECORDS.name}"
                raise RecordError(f"{path}:{number + 1}: {reason}") from None
            repaired.append(text.decode("utf-8", "replace"))
    torn = None
    if rest:
        try:
            lines.append(parse_line(rest, forms))
        except Malformed as error:
            # Truncated JSON is never valid JSON, so this line is wrong and not torn.
            raise RecordError(f"{path}:{len(whole) + 1}: {error}") from None
        except ValueError:
            torn = rest.decode("utf-8", "replace")
    kept = tuple(line for line in lines if line is not None and not isinstance(line, Torn))
    return Records(kept, torn, tuple(repaired))


def has_finished_cell(path: str | os.PathLike[str]) -> bool:
    """Return whether a record file has a finished cell of any run; False if there is no such
    file."""
    try:
        with open(path, "rb") as file:
            return any(line.startswith(_END) for line in file)
    except OSError:
        return False


def encode_line(fields: Mapping[str, object]) -> bytes:
    """Encode a dictionary of fields as a line (JSON) of a record file."""
    text = json.dumps(plain(fields), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def parse_line(text: bytes, forms: Mapping[str, type[RecordLine]] = FORMS) -> RecordLine | None:
    """Return the record in a line of text, or None if ``forms`` does not have its kind.

    Raises:
        Malformed: the line is too long, or a field of its kind is missing.
        ValueError: the text is not a line of a record file.
    """
    if len(text) > MAX_LINE:
        raise Malformed(f"the line has {len(text):,} bytes; a record has at most {MAX_LINE:,}")
    try:
        fields = read_json(text, "the line")
    except ValueError:
        raise ValueError("not JSON; only the last line may be incomplete") from None
    if not isinstance(fields, dict) or not isinstance(kind := fields.get("kind"), str):
        raise ValueError("not a record: the field 'kind' is missing")
    if kind == "head" and fields.get("schema") != SCHEMA_VERSION:
        raise ValueError(
            f"schema {fields.get('schema')!r} is unknown; {SCHEMA_VERSION} is the only schema that "
            "this version of the harness reads"
        )
    form = forms.get(kind)
    return None if form is None else formed(fields, form, kind)


def _reports_torn(text: bytes, torn: bytes) -> bool:
    """Return whether the line ``text`` reports that ``torn``, the line before it, is incomplete. A
    writer adds such a line when it finds that an earlier writer was killed."""
    with contextlib.suppress(ValueError):
        line = parse_line(text)
        return isinstance(line, Torn) and line.bytes == len(torn)
    return False
