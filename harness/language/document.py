"""Strict YAML with places: every value of a spec file knows its line and column."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import Place, SpecError, one_or_many, shorten
from harness.files.complaints import Data, KeyPath, complaints
from harness.files.user_file import displayed
from harness.language.nodes import Nodes, Spot, read_nodes
from harness.language.source import MAX_BYTES, read_text

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Located:
    """From (line, column) in a text, both from 0, to its place; ``start`` is that of (0, 0)."""

    start: Place

    def __call__(self, line: int, column: int) -> Place:
        """The place."""
        return Place(self.start.file, self.start.line + line, self.start.column + column)


@dataclass(frozen=True)
class Document:
    """One spec file: plain data, and where each part of it stands.

    A path is the keys and indices from the root, as in ``("layers", "rnn", "units")``;
    the empty path is the root.
    """

    file: str
    nodes: Nodes
    lines: tuple[str, ...]

    @property
    def data(self) -> Data:
        """The content: dict, list, str, int, float and bool only."""
        return self.nodes.data

    def place_of(self, path: KeyPath) -> Place:
        """Where the value at ``path`` starts, or the nearest value that encloses it."""
        while path not in self.nodes.values:
            path = path[:-1]
        return self.nodes.values[path].place

    def place_of_key(self, path: KeyPath) -> Place:
        """Where the key of the value at ``path`` starts; for a list's item, the item."""
        return self.nodes.keys.get(path) or self.place_of(path)

    def locator(self, path: KeyPath) -> Located:
        """Where the parts of the scalar at ``path`` are.

        Raises SpecError where that is not known: for a folded text (``>``), and
        for one outside a ``|`` block that has several lines or escapes. Raises KeyError
        if nothing stands at ``path``.
        """
        spot = self.nodes.values[path]
        place = spot.place
        if spot.style == "|":
            return Located(Place(self.file, place.line + 1, self._indent(spot) + 1))
        start = place.column + bool(spot.style)
        written = self.lines[place.line - 1][start - 1 :]
        if spot.style == ">" or not written.startswith(spot.text):
            message = "write this on one line without escapes, or as a block of lines after '|'"
            raise SpecError(f"{message}, found {shorten(spot.text)!r}", place)
        return Located(Place(self.file, place.line, start))

    def _indent(self, spot: Spot) -> int:
        for line, written in zip(
            spot.text.split("\n"), self.lines[spot.place.line :], strict=False
        ):
            if line:
                return len(written) - len(line)
        return 0


def load(path: Path) -> Document:
    """Read one spec file; raises SpecError, at its place, for all that is not strict YAML."""
    return parse(read_text(path), displayed(path))


def parse(text: str, file: str) -> Document:
    """Parse the text of a spec file; ``file`` is the name that places show. Raises SpecError."""
    if len(text) > MAX_BYTES:
        message = f"{len(text):,} characters are too many for a spec; at most {MAX_BYTES:,}"
        raise SpecError(message, Place(file))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Document(file, read_nodes(text, file), tuple(text.split("\n")))


def validate(document: Document, model: type[M]) -> M:
    """The document's data as an instance of ``model``.

    Validation is pydantic's for JSON, so that under ``strict`` a list may fill a tuple.
    Raises SpecError, or SpecErrors for several, each at the key or value at fault.
    """
    try:
        return model.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        found = complaints(error, model, document.data)
    errors = []
    for complaint in found:
        place = document.place_of_key if complaint.at_key else document.place_of
        errors.append(SpecError(complaint.message, place(complaint.path)))
    raise one_or_many(errors)
