"""Many models at hand, of which few are in memory: the others are made again from their text."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from harness.errors import Place
from harness.language.definitions import check_definition
from harness.language.document import parse, validate
from harness.language.library import Definition, Library
from harness.language.model import Spec
from harness.language.notes import notes
from harness.language.rivals import clash, same_file
from harness.language.schema import KINDS

KEPT = 64
"""Models in memory; a loaded one takes some 60 KiB."""


@dataclass(frozen=True)
class _Text:
    """The text that a model is made from again: its file may be another by then."""

    file: str
    text: str
    path: Path | Traversable | None
    place: Place  # of its name

    @classmethod
    def of(cls, definition: Definition) -> _Text:
        document = definition.document
        text = "\n".join(document.lines)
        return cls(document.file, text, definition.path, definition.name[1])

    def definition(self) -> Definition:
        document = parse(self.text, self.file)
        content = validate(document, KINDS["model"])
        check_definition(document, content)
        return Definition(document, content, self.path)


class Shelf:
    """Models by name, in the order in which they were added, which share one library."""

    def __init__(self, library: Library, kept: int = KEPT) -> None:
        self.library, self.kept = library, kept
        self._texts: dict[str, _Text] = {}
        self._loaded: OrderedDict[str, Spec] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, name: str) -> Spec:
        """Load a model by name or by its file's path.

        Raises:
            SpecError: its file is wrong, or another one has declared its name.
            UsageError: there is none of this name.
        """
        definition = self.library.model(name)
        self.library.forget("model", name)
        spec = Spec(self.library, definition)
        text = _Text.of(definition)
        first = self._texts.setdefault(spec.name, text)
        if not same_file(first.path, text.path):
            raise clash("model", spec.name, text.place, first.place)
        with self._lock:
            self._keep(spec)
        return spec

    def __getitem__(self, name: str) -> Spec:
        with self._lock:
            spec = self._loaded.get(name)
            if spec is None:
                spec = Spec(self.library, self._texts[name].definition())
            self._keep(spec)
            return spec

    def __iter__(self) -> Iterator[Spec]:
        return (self[name] for name in self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def names(self) -> tuple[str, ...]:
        """The models' own names."""
        return tuple(self._texts)

    @property
    def notes(self) -> list[str]:
        """What a user should know of the models' definitions."""
        return notes(self.library)

    def _keep(self, spec: Spec) -> None:
        self._loaded[spec.name] = spec
        self._loaded.move_to_end(spec.name)
        while len(self._loaded) > self.kept:
            self._loaded.popitem(last=False)
