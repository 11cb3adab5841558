"""Parser of spec files, which are strict YAML. It records the line and column of every value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from harness.errors import Place, SpecError, closest, one_or_many, shorten
from harness.files.forms import Data, KeyPath, Scalar, complaints
from harness.files.kinds import describe_non_text
from harness.files.user_file import FOLDER, FileFault, displayed, read_bytes

# Reading of spec files. Reading never hangs, and rejects files that cannot be specs.

MAX_BYTES = 1 << 20


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark.

    Raises:
        SpecError: the file is not readable, too large, of a different kind, or not UTF-8.
    """
    place = Place(displayed(path))
    try:
        content = read_bytes(path, MAX_BYTES, "a spec")
    except FileFault as fault:
        raise SpecError(f"{fault.reason}{_path_hint(path, fault)}", place) from None
    if other_kind := describe_non_text(path):
        raise SpecError(f"this is {other_kind}, not a spec", place)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8-sig", "replace")) + 1
        byte_text = f"0x{content[error.start]:02x} at byte {error.start:,}"
        message = f"this is not UTF-8: found {byte_text}; save the file as UTF-8"
        raise SpecError(message, Place(place.file, line, column)) from None


def _path_hint(path: Path, fault: FileFault) -> str:
    if fault.missing:
        return _similar_file_hint(path)
    return "; name a .yaml file in it" if fault.reason == FOLDER else ""


def _similar_file_hint(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {displayed(folder)!r} either"
    try:
        stems = [entry.stem for entry in folder.iterdir() if entry.suffix == ".yaml"]
    except OSError:
        return ""
    # Compare names without their suffix, because equal suffixes make all names similar.
    stem = closest(path.stem, stems)
    return "" if stem is None else f"; did you mean {stem + '.yaml'!r}?"


# Conversion of the text of a spec file to plain data, with the position of each key and value. The
# text is read as a stream of parser events, so that aliases, tags, deep nesting and duplicate keys
# are rejected before any object is created.

# Values of unquoted words, by the core schema of YAML 1.2. Words that YAML 1.1 reads differently
# (1e-3 as text, ``no`` as false, 010 as 8, 1:30 as 90) are read as in 1.2, or rejected with a
# message that says what to write.

MAX_INTEGER = 2**63 - 1

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_OR_QUOTE = "or put it in quotes if it is text"
_BOOLEANS = {"true": True, "false": False}
_REJECTED_WORDS = [
    (r"null|Null|NULL|~", "a value is missing"),
    (r"true|false", f"write true or false in lower case, {_OR_QUOTE}"),
    (r"yes|no|on|off", f"this is ambiguous in YAML; write true or false, {_OR_QUOTE}"),
    (r"[-+]?\.(inf|nan)", f"only finite numbers are allowed; write a decimal number, {_OR_QUOTE}"),
    (r"[-+]?0[xob][0-9a-f_]+", f"write a decimal number, {_OR_QUOTE}"),
    (r"[-+]?0[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?", f"leave out the leading zeros, {_OR_QUOTE}"),
    (r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])++(\.[0-9_]*)?", f"write a plain number, {_OR_QUOTE}"),
    (r"[-+]?(?=[0-9.]*_)\.?[0-9][0-9_.]*(e[-+]?[0-9_]+)?", f"leave out the '_', {_OR_QUOTE}"),
    (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([t ].*)?", "put the date in quotes"),
]
_REJECTED_PATTERNS = [
    (re.compile(pattern, re.IGNORECASE | re.ASCII), hint) for pattern, hint in _REJECTED_WORDS
]


def plain_value(text: str) -> Scalar:
    """Return the value of an unquoted scalar, e.g. 1.5 for ``1.5``. Raises ValueError if the scalar
    is ambiguous; the message says what to write."""
    if not text:
        raise ValueError("a value is missing")
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    # Check the length first: Python does not convert integers of more than 4,300 digits.
    if _INTEGER.fullmatch(text):
        if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
            raise ValueError(f"this number is too large; at most {MAX_INTEGER} is allowed")
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if not math.isfinite(value):
            raise ValueError("this number is too large for a 64-bit float")
        return value
    for pattern, hint in _REJECTED_PATTERNS:
        if pattern.fullmatch(text):
            raise ValueError(hint)
    return text


MAX_DEPTH = 30
MAX_NODES = 20_000
# Parts of messages of the YAML parser: the message for a tab before a key, and the message for an
# unquoted ': '.
NO_TOKEN, NO_MAPPING = "cannot start any token", "mapping values are not allowed"

# The loader is used only to get parser events; it constructs no objects.
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# U+0085, U+2028 and U+2029 are line breaks in YAML 1.1 but not in editors, so all later line
# numbers would be wrong.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
)


@dataclass(frozen=True)
class Spot:
    """The position (``place``) of a value in a file. For a scalar, also its text and quoting style.

    ``style`` is "" for an unquoted scalar, otherwise its first character: ' " | or >.
    """

    place: Place
    text: str = ""
    style: str = ""


@dataclass
class Nodes:
    """The data of a file, and the position of every value (``values``) and every key (``keys``). A
    position is found by its key path, e.g. ``("sizes", "hidden")``."""

    data: Data = ""
    values: dict[KeyPath, Spot] = field(default_factory=dict)
    keys: dict[KeyPath, Place] = field(default_factory=dict)


def read_nodes(text: str, file: str) -> Nodes:
    r"""Parse a text with LF line breaks as strict YAML. Raises SpecError if it is not."""
    if bad := _UNPRINTABLE.search(text):
        line_start = text.rfind("\n", 0, bad.start()) + 1
        line = text.count("\n", 0, bad.start()) + 1
        place = Place(file, line, bad.start() - line_start + 1)
        raise SpecError(f"character U+{ord(bad.group()):04X} is not allowed in a spec", place)
    builder = _Builder(file)
    for event in _parse_events(text, file):
        builder.add_event(event)
    if not builder.nodes.values:
        raise SpecError("the file is empty", Place(file, 1, 1))
    return builder.nodes


def _character_at(text: str, place: Place) -> str:
    """Return the character at a position; "" if the line or the text ends before this position."""
    lines = text.splitlines()
    return lines[place.line - 1][place.column - 1 :][:1] if place.line <= len(lines) else ""


def _parse_events(text: str, file: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        place = _mark_place(file, error.problem_mark or error.context_mark)
        problem = error.problem or error.context or "unknown problem"
        if NO_TOKEN in problem and _character_at(text, place) == "\t":
            problem = "a line begins with a tab; use spaces"
        elif NO_MAPPING in problem:
            problem += "; a text with ': ' in it needs quotes"
        raise SpecError(f"this is not YAML: {problem}", place) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The pure-Python parser raises these errors for bad escapes and version numbers.
        raise SpecError(f"this is not YAML: {shorten(str(error))}", Place(file, 1, 1)) from None


def _mark_place(file: str, mark: Any) -> Place:
    return Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)


@dataclass
class _Frame:
    """A list or mapping that is still being read. ``path`` is its key path. In a mapping, the next
    value belongs to ``key``."""

    path: KeyPath
    items: list[Data] | dict[str, Data]
    key: str | None = None

    def expects_key(self) -> bool:
        return isinstance(self.items, dict) and self.key is None

    def next_path(self) -> KeyPath:
        return (*self.path, len(self.items) if self.key is None else self.key)

    def add(self, value: Data) -> None:
        if isinstance(self.items, list):
            self.items.append(value)
        elif self.key is not None:
            self.items[self.key] = value
            self.key = None


class _Builder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.nodes = Nodes()
        self.frames: list[_Frame] = []
        self.count = 0
        self.documents = 0

    def add_event(self, event: yaml.Event) -> None:
        place = _mark_place(self.file, event.start_mark)
        match event:
            case yaml.DocumentStartEvent():
                self.check_document_start(event, place)
            case yaml.NodeEvent():
                self.check(event, place)
                if self.frames and self.frames[-1].expects_key():
                    self.key(event, place)
                else:
                    self.value(event, place)
            case yaml.CollectionEndEvent():
                self.frames.pop()

    def check_document_start(self, event: yaml.DocumentStartEvent, place: Place) -> None:
        self.documents += 1
        if self.documents > 1:
            raise SpecError("a file can have only one document; remove this '---'", place)
        if event.version or event.tags:
            raise SpecError("directives ('%...') are not allowed in a spec", place)

    def check(self, event: yaml.NodeEvent, place: Place) -> None:
        self.count += 1
        if self.count > MAX_NODES:
            raise SpecError(f"this file has more than {MAX_NODES:,} keys and values", place)
        if event.anchor is not None:
            mark = "*" if isinstance(event, yaml.AliasEvent) else "&"
            name = repr(shorten(mark + event.anchor))
            message = f"anchors and aliases are not allowed in a spec, found {name}"
            raise SpecError(f"{message}; write the value out, or quote it if it is text", place)
        tag = getattr(event, "tag", None)
        if tag is not None:
            message = f"tags are not allowed in a spec, found {shorten(tag)!r}"
            raise SpecError(f"{message}; leave it out, or quote the value if it is text", place)

    def key(self, event: yaml.NodeEvent, place: Place) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise SpecError("a key must be a name, found a list or mapping", place)
        if not event.style and not event.value:
            raise SpecError("a key is missing before this ':'", place)
        if not event.style and event.value == "<<":
            raise SpecError("merge keys ('<<') are not allowed; write the keys out", place)
        key = self.scalar(event, place)
        if not isinstance(key, str):
            key_text = shorten(event.value)
            hint = self._round_bracket_hint() or "; put it in quotes"
            raise SpecError(f"a key must be text, found {key_text}{hint}", place)
        frame = self.frames[-1]
        frame.key = key
        path = frame.next_path()
        if path in self.nodes.keys:
            first = self.nodes.keys[path]
            raise SpecError(f"key {shorten(key)!r} is given twice; the first is at {first}", place)
        self.nodes.keys[path] = place

    def value(self, event: yaml.NodeEvent, place: Place) -> None:
        frame = self.frames[-1] if self.frames else None
        path = frame.next_path() if frame else ()
        content: Data
        if isinstance(event, yaml.ScalarEvent):
            content = self.scalar(event, place)
            self.nodes.values[path] = Spot(place, event.value, event.style or "")
        else:
            content = [] if isinstance(event, yaml.SequenceStartEvent) else {}
            self.nodes.values[path] = Spot(place)
        if frame:
            frame.add(content)
        else:
            self.nodes.data = content
        if isinstance(content, list | dict):
            self.frames.append(_Frame(path, content))
            if len(self.frames) > MAX_DEPTH:
                raise SpecError(f"this is nested more than {MAX_DEPTH} levels deep", place)

    def scalar(self, event: yaml.ScalarEvent, place: Place) -> Scalar:
        text = event.value
        # The style of an unquoted scalar is None in PyYAML's own parser and "" in libyaml.
        if event.style:
            if bad := _UNPRINTABLE.search(text):
                message = f"character U+{ord(bad.group()):04X} is not allowed in a text"
                raise SpecError(message, place)
            return str(text)
        if not text and not self.frames:
            raise SpecError("the file is empty", place)
        try:
            return plain_value(text)
        except ValueError as error:
            found_text = f", found {shorten(text)!r}" if text else self._round_bracket_hint()
            raise SpecError(f"{error}{found_text}", place) from None

    def _round_bracket_hint(self) -> str:
        """Return a hint if the user wrote a list in round brackets, as in ``shape: (batch, time)``,
        which YAML reads as separate values."""
        items = self.frames[-1].items
        for value in items.values() if isinstance(items, dict) else ():
            if not isinstance(value, str):
                continue
            if value.startswith("("):
                return f": write lists in square brackets, as [batch, time]; found {value!r} before"
            if value.count("(") > value.count(")"):
                return (
                    ": a comma inside {...} ends a value; quote a value that contains a comma, or "
                    f"write it on a separate line without braces; found {shorten(value)!r} before"
                )
        return ""


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Locator:
    """A function that converts a position within a scalar (line and column, counted from 0) to a
    position in the file. ``start`` is the position in the file of the scalar's first character."""

    start: Place

    def __call__(self, line: int, column: int) -> Place:
        """Return the position in the file of the given line and column of the scalar."""
        return Place(self.start.file, self.start.line + line, self.start.column + column)


@dataclass(frozen=True)
class Document:
    """The content of a spec file as dictionaries, lists, texts and numbers, with the position of
    each key and value.

    A path consists of the keys and indices that lead from the root to a value, e.g. ``("layers",
    "rnn", "units")``. The empty path is the root.
    """

    file: str
    nodes: Nodes
    lines: tuple[str, ...]

    @property
    def data(self) -> Data:
        """The content of the file as values of the types dict, list, str, int, float and bool."""
        return self.nodes.data

    def place_of(self, path: KeyPath) -> Place:
        """Return the position of the value at ``path``. If there is no such value, return the
        position of the innermost list or mapping around it."""
        while path not in self.nodes.values:
            path = path[:-1]
        return self.nodes.values[path].place

    def place_of_key(self, path: KeyPath) -> Place:
        """Return the position of the key at ``path``. If ``path`` leads to an item of a list, which
        has no key, return the position of the item."""
        return self.nodes.keys.get(path) or self.place_of(path)

    def locator(self, path: KeyPath) -> Locator:
        """Return a function that converts positions in the scalar at ``path`` to positions in the
        file.

        Raises:
            SpecError: the scalar is folded, or has several lines or escapes outside a ``|`` block.
            KeyError: the document has no value at ``path``.
        """
        spot = self.nodes.values[path]
        place = spot.place
        if spot.style == "|":
            return Locator(Place(self.file, place.line + 1, self._block_indent(spot) + 1))
        start = place.column + bool(spot.style)
        written = self.lines[place.line - 1][start - 1 :]
        if spot.style == ">" or not written.startswith(spot.text):
            message = "write this on one line without escapes, or as a block of lines after '|'"
            raise SpecError(f"{message}, found {shorten(spot.text)!r}", place)
        return Locator(Place(self.file, place.line, start))

    def part(self, path: KeyPath) -> Document:
        """Return the value at ``path`` as a separate document. Its positions still refer to the
        whole file."""
        start, data = len(path), self.data
        for step in path:
            data = data[step]  # type: ignore[index]
        values = {p[start:]: spot for p, spot in self.nodes.values.items() if p[:start] == path}
        keys = {p[start:]: place for p, place in self.nodes.keys.items() if p[:start] == path}
        return Document(self.file, Nodes(data, values, keys), self.lines)

    def covers(self, place: Place) -> bool:
        """Return whether a position in the file is inside this document."""
        spots = self.nodes.values.values()
        first = self.nodes.values[()].place.line
        last = max(spot.place.line + spot.text.count("\n") for spot in spots)
        return place.file == self.file and first <= place.line <= last

    def _block_indent(self, spot: Spot) -> int:
        for line, source_line in zip(
            spot.text.split("\n"), self.lines[spot.place.line :], strict=False
        ):
            if line:
                return len(source_line) - len(line)
        return 0


def load(path: Path) -> Document:
    """Read and parse a spec file. Raises SpecError with a position if it is not strict YAML."""
    return parse(read_text(path), displayed(path))


def parse(text: str, file: str) -> Document:
    """Parse the text of a spec file; messages call the file ``file``. Raises SpecError if the text
    is not strict YAML."""
    if len(text) > MAX_BYTES:
        message = f"the spec has {len(text):,} characters; at most {MAX_BYTES:,} are allowed"
        raise SpecError(message, Place(file))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Document(file, read_nodes(text, file), tuple(text.split("\n")))


def validate(document: Document, model: type[M]) -> M:
    """Convert the data of a document to an object of the pydantic class ``model``. Raises SpecError
    with the position of the wrong key or value (SpecErrors for several errors).

    pydantic gets the data as JSON text, because in strict mode it accepts a list for a tuple only
    in JSON.
    """
    try:
        return model.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        found_complaints = complaints(error, model, document.data)
    errors = []
    for complaint in found_complaints:
        place = document.place_of_key if complaint.at_key else document.place_of
        errors.append(SpecError(complaint.message, place(complaint.path)))
    raise one_or_many(errors)
