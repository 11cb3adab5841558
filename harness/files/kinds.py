"""Kinds of files, recognised by their content. An option for output never overwrites a file of a
different kind.

Every function that writes to a user's path calls :func:`check_place` first. Only an empty file, or
a file of the same kind that the harness wrote, may be replaced or appended to. A user's spec, text
or model is never changed, even if an option for output names it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.files.atomic import write_whole
from harness.files.user_file import (
    MAX_PROGRAM,
    MAX_RESULTS,
    NUL,
    FileFault,
    displayed,
    other_kind,
    read_bytes,
    read_head,
    read_tail,
    why,
)

PROJECT = b"backend-comparison-harness"
# The start of the weights header, after the 8 bytes of its length; the checksum follows.
OPENING = b'{"__metadata__":{"sha256":"'
# The start of a record file, and the kinds of its lines.
RECORD = b'{"kind":"head",'
# The start of a record file of 'harness fuzz'.
FUZZ = b'{"kind":"fuzz",'
LINES = frozenset({"head", "begin", "result", "end", "blame", "pair", "torn"})
# The end of exported files: the comment of an archive, or the last line of a module.
EXPORTED = b"written by backend-comparison-harness export"
# The comment of the archives that 'harness run' writes.
RAN = b"written by backend-comparison-harness run"
# The tag in the head of a report page.
REPORTED = b'<meta name="generator" content="' + PROJECT + b'">'
# The same tag of a page that draws a model.
DRAWN = REPORTED.replace(b'">', b' explain">')
# The first line of the text of an issue.
ISSUED = b"<!-- written by backend-comparison-harness check -->\n"
# The number of bytes that identify a file; the first line of a record file is not longer.
HEAD = 1 << 16
# The groups of arrays in a reproducer: inputs of a pass, then its results.
GROUPS = ("parameters", "statistics", "inputs", "state", "targets")
ARCHIVED = (*GROUPS, "cotangents", "expected")
# Kinds of files that users may have written, in the words of :func:`describe`.
SPEC = "a spec"
TEXTS = frozenset(
    {SPEC, "a text", "JSON of something else", "an empty file", "a file of something else"}
)
PROGRAM_KEYS = frozenset({"cell", "check", "phase", "training", "inference"})


@dataclass(frozen=True)
class FileKind:
    """A kind of file that the harness writes. ``name`` describes it in messages, e.g. "weights".

    ``matches`` recognises a file by its path and its first :data:`HEAD` bytes (at least one). The
    name of a new file must end in one of ``endings`` or have no suffix. If ``endings`` is empty,
    every suffix is allowed.
    """

    name: str
    matches: Callable[[Path, bytes], bool]
    endings: tuple[str, ...] = ()


def check_place(path: Path, kind: FileKind) -> bool:
    """Return True if there is a file of this kind at ``path``, which may therefore be replaced or
    appended to.

    Return False if there is no file or an empty file, so that a new file may be written there.

    Raises:
        FileFault: there is a file of another kind, the name of a new file has a wrong suffix, or
            the folder is not writable.
    """
    target = _target(path)
    exists = check_kind(path, kind)
    folder = target.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"cannot write to the folder {displayed(folder)}: {_error_text(error)}"
        raise FileFault(displayed(path), reason) from None
    return exists


def check_output(path: Path, kind: FileKind) -> bool:
    """Check a file of an option like :func:`check_place`.

    Raises:
        UsageError: a file of this kind cannot be written to ``path``.
    """
    try:
        return check_place(path, kind)
    except FileFault as fault:
        raise UsageError(f"cannot write {fault}") from None


def write_output(path: Path, content: bytes) -> None:
    """Write the file of an option, atomically.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"cannot write {displayed(path)}: {why(error)}") from None


def check_kind(path: Path, kind: FileKind) -> bool:
    """Check a file like :func:`check_place`, but do not check whether its folder is writable.

    Raises:
        FileFault: the file is of another kind or write-protected, or the name of a new file has a
            wrong suffix.
    """
    name = displayed(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        _check_ending(path, kind)
        return False
    except (OSError, ValueError) as error:
        raise FileFault(name, _error_text(error)) from None
    if other_file := other_kind(status):
        is_null = os.path.realpath(path) == os.path.realpath(os.devnull)
        hint = "to write no file, leave the option out" if is_null else "name a file"
        raise FileFault(name, f"{other_file}; {hint}")
    if not status.st_mode & 0o222 or not os.access(
        path, os.W_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        raise FileFault(
            name, "this file is write-protected; choose another name, or make it writable"
        )
    if not status.st_size:
        _check_ending(path, kind)
        return False
    if not kind.matches(path, read_head(path, HEAD)):
        reason = (
            f"this is {describe(path)}, not {kind.name}, and is not overwritten; choose another "
            "name, or move the file"
        )
        raise FileFault(name, reason)
    return True


def _check_ending(path: Path, kind: FileKind) -> None:
    ending = path.suffix.lower()
    if ending and kind.endings and ending not in kind.endings:
        allowed = " or ".join(kind.endings)
        raise FileFault(
            displayed(path),
            f"the name of {kind.name} must end in {allowed}, found {ending!r}; choose another name",
        )


def describe(path: Path) -> str:
    """Return a description of the kind of a regular file, e.g. "a spec"."""
    head = read_head(path, HEAD)
    if not head:
        return "an empty file"
    for kind in KINDS:
        if kind.matches(path, head):
            return kind.name
    return _guess_kind(head)


def describe_non_text(path: Path) -> str:
    """Return a description of a file's kind, e.g. "weights"; return "" if the file is a text or
    spec that a user wrote."""
    description = describe(path)
    return "" if description in TEXTS else description


def mark_export(path: Path) -> None:
    """Label a file as exported: a Python module in its last line, a zip archive in its comment.
    Later exports may then replace it.

    Files of other types get no label.

    Raises:
        OSError: the file cannot be written.
    """
    if path.suffix == ".py":
        with path.open("ab") as file:
            file.write(b"\n# " + EXPORTED + b"\n")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = EXPORTED
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _target(path: Path) -> Path:
    """Return the file that a path leads to after symbolic links; raise :class:`FileFault` if no
    file can be there."""
    name = displayed(path)
    try:
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            # Show the folder as the user wrote it, unless a symbolic link leads to another folder.
            folder = target.parent if os.path.islink(path) else Path(path).parent
            raise FileFault(name, f"there is no folder {displayed(folder)}")
        longest = os.pathconf(target.parent, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
        if (length := len(os.fsencode(target.name))) > longest:
            reason = f"a name of {length} bytes is too long, at most {longest} are allowed"
            raise FileFault(name, f"{reason}; choose a shorter name")
        if target.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except (OSError, ValueError) as error:
        raise FileFault(name, _error_text(error)) from None
    return target


def _error_text(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "unknown error").lower()
    return NUL


def _format_matcher(pattern: bytes) -> Callable[[Path, bytes], bool]:
    """Return a function that recognises weight files of the harness by their first bytes.
    ``pattern`` is the name of the format in the header, e.g. of a checkpoint."""
    header_pattern = re.compile(
        rb".{8}" + re.escape(OPENING) + rb'[0-9a-f]{64}","format":"' + pattern + rb' \d+"', re.S
    )
    return lambda _, head: header_pattern.match(head) is not None


def _is_records(_: Path, head: bytes) -> bool:
    first, end, rest = head.partition(b"\n")
    if RECORD.startswith(first):
        # A writer was killed in its first line. The next writer ends that line and marks it as
        # torn.
        return not end or _line_kind(rest.partition(b"\n")[0]) == "torn"
    return first.startswith(RECORD) or _line_kind(first) in LINES


def _line_kind(line: bytes) -> str:
    kind = (_json_object(line) or {}).get("kind")
    return kind if isinstance(kind, str) else ""


def _is_export(path: Path, head: bytes) -> bool:
    if path.suffix == ".onnx":  # after a number, the first field names the producer
        return head[4:].startswith(PROJECT)
    return read_tail(path, len(EXPORTED) + 1).rstrip(b"\n").endswith(EXPORTED)


def _is_arrays(path: Path, head: bytes) -> bool:
    if not head.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    groups = {name.partition("/")[0] for name in names}
    return "expected" in groups and groups <= set(ARCHIVED)


def _start_matcher(start: bytes, inside: bytes = b"") -> Callable[[Path, bytes], bool]:
    return lambda _, head: head.startswith(start) and inside in head


def _json_keys(path: Path, head: bytes, limit: int) -> set[str]:
    """Return the top-level keys of a file that contains a JSON object; otherwise an empty set."""
    if not head.startswith(b"{"):
        return set()
    try:
        return set(_json_object(read_bytes(path, limit, "JSON")) or ())
    except FileFault:  # too large to be a file of the harness
        return set()


def _json_object(text: bytes) -> dict[str, object] | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _guess_kind(head: bytes) -> str:
    """Guess the kind of a file that the harness did not write, and return a description."""
    if head.startswith(b"PK\x03\x04"):
        return "an archive of something else, such as a model"
    if head[8:10] == b'{"':
        return "a safetensors file of something else"
    try:
        # The bytes may end within a character.
        text = head.decode("utf-8-sig", "strict" if len(head) < HEAD else "ignore")
    except UnicodeDecodeError:
        return "a file of something else"
    content_lines = (
        line for line in text.splitlines() if line.strip() and not line.startswith("#")
    )
    first = next(content_lines, "")
    if re.match(r"(model|layer|function|loss|optimizer|differences)\s*:", first):
        return SPEC
    return "JSON of something else" if first[:1] in ("{", "[") else "a text"


WEIGHTS = FileKind("weights", _format_matcher(PROJECT + b" weights"), (".safetensors", ".st"))
CHECKPOINT = FileKind("a checkpoint of a training", _format_matcher(PROJECT + b" checkpoint"))
RECORDS = FileKind("a record file of 'harness check'", _is_records, (".jsonl", ".json"))
FUZZED = FileKind("a record file of 'harness fuzz'", _start_matcher(FUZZ), (".jsonl", ".json"))
RESULTS = FileKind(
    "results of 'harness bench'",
    lambda path, head: {"benchmarks", "harness"} <= _json_keys(path, head, MAX_RESULTS),
    (".json",),
)
EXPORT = FileKind("a file that 'harness export' wrote", _is_export)
PROGRAM = FileKind(
    "the program of a reproducer",
    lambda path, head: _json_keys(path, head, MAX_PROGRAM) >= PROGRAM_KEYS,
)
ARRAYS = FileKind("the arrays of a reproducer", _is_arrays)
PAGE = FileKind(
    "a page of 'harness report'", _start_matcher(b"<!doctype html>", REPORTED), (".html", ".htm")
)
DRAWING = FileKind(
    "a page of 'harness explain'", _start_matcher(b"<!doctype html>", DRAWN), (".html", ".htm")
)
MARKDOWN = FileKind(
    "Markdown of 'harness report'", _start_matcher(b"<!-- " + PROJECT + b" report -->"), (".md",)
)
JUNIT = FileKind(
    "JUnit's XML of 'harness report'",
    _start_matcher(b"<?xml", b'<testsuites name="' + PROJECT + b'"'),
    (".xml",),
)
ISSUE = FileKind("the text of an issue of a reproducer", _start_matcher(ISSUED))
ARRAYS_OF_RUN = FileKind(
    "the results of 'harness run'",
    lambda path, head: head.startswith(b"PK") and read_tail(path, len(RAN)) == RAN,
    (".npz",),
)
REPORTS = (PAGE, MARKDOWN, JUNIT, ISSUE, DRAWING)
KINDS = (
    WEIGHTS,
    CHECKPOINT,
    RECORDS,
    FUZZED,
    EXPORT,
    ARRAYS_OF_RUN,
    ARRAYS,
    PROGRAM,
    RESULTS,
    *REPORTS,
)
