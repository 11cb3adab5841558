"""Where definitions live: the specs that ship, and folders that a user adds before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar, cast

from harness.errors import Place, SpecError, UsageError, did_you_mean
from harness.spec.document import Document, load, parse, validate
from harness.spec.schema import KINDS, Documented

FOLDERS: Mapping[str, str] = {
    "model": "models",
    "layer": "layers",
    "function": "functions",
    "loss": "losses",
    "optimizer": "optimizers",
}
D = TypeVar("D", bound=Documented)


@dataclass(frozen=True)
class Definition:
    """A validated file and the document that it came from, for places."""

    document: Document
    content: Documented


@dataclass
class Library:
    """Looks definitions up by kind and name, and keeps those that it has read.

    ``folders`` are searched in order, before the specs that ship; ``overrides`` maps
    ``(kind, name)`` to the text of a definition to be used instead of either.
    """

    folders: tuple[Path, ...] = ()
    overrides: Mapping[tuple[str, str], str] = field(default_factory=dict)
    _read: dict[tuple[str, str], Definition] = field(default_factory=dict)

    def find(self, kind: str, name: str, place: Place | None = None) -> Definition:
        """The definition; :class:`SpecError` at ``place`` if there is none of that name."""
        key = (kind, name)
        if key not in self._read:
            self._read[key] = self._load(kind, name, place)
        return self._read[key]

    def _load(self, kind: str, name: str, place: Place | None) -> Definition:
        relative = f"{FOLDERS[kind]}/{name}.yaml"
        if (kind, name) in self.overrides:
            return _checked(kind, parse(self.overrides[kind, name], f"<{relative}>"), name)
        for folder in self.folders:
            if (folder / relative).is_file():
                return _checked(kind, load(folder / relative), name)
        shipped = files("harness.specs").joinpath(relative)
        if name.replace("/", "").replace("_", "").isalnum() and shipped.is_file():
            document = parse(shipped.read_text(encoding="utf-8"), f"specs/{relative}")
            return _checked(kind, document, name)
        known = self.names(kind)
        message = f"unknown {kind} {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})"
        raise SpecError(message, place) if place else UsageError(message)

    def has(self, kind: str, name: str) -> bool:
        """Whether there is such a definition."""
        return name in self.names(kind)

    def names(self, kind: str) -> tuple[str, ...]:
        """All names of a kind, sorted."""
        found = {name for k, name in self.overrides if k == kind}
        for folder in self.folders:
            found.update(_names_below(folder / FOLDERS[kind]))
        found.update(_names_below(files("harness.specs").joinpath(FOLDERS[kind])))
        return tuple(sorted(found))

    def model(self, name: str) -> Definition:
        """A model by name (``lesson6/simple_rnn``) or by the path of its file."""
        if name.endswith((".yaml", ".yml")) or Path(name).is_file():
            return _checked("model", load(Path(name)), None)
        return self.find("model", name)


def _names_below(folder: Traversable | Path, prefix: str = "") -> Iterator[str]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names_below(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml")


def _checked(kind: str, document: Document, name: str | None) -> Definition:
    content = validate(document, KINDS[kind])
    found = getattr(content, kind)
    if name is not None and found != name:
        message = f"{kind} {found!r} stands in a file named {name!r}: the two must be the same"
        raise SpecError(message, document.place_of((kind,)))
    return Definition(document, content)


def content(definition: Definition, kind: type[D]) -> D:
    """The definition's content, typed."""
    assert isinstance(definition.content, kind)
    return cast(D, definition.content)
