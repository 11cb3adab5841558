"""The catalogue of defaults that differ, ``specs/defaults/*.yaml``, and what is asked of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from pydantic import Field

from harness.errors import UsageError, check_known, did_you_mean
from harness.language.document import parse, validate
from harness.language.strict import Strict
from harness.runtime.hookspecs import Measured

# A number that was written down, to a few digits, stands for all that round to it.
NEAR = 0.01


class Framework(Strict):
    """One framework in an entry: what it ``does`` where nothing is said, what its plugin's
    measurement of it gives, and what to ``set`` so that all agree."""

    does: str
    set: str
    measured: bool | int | float | str

    def holds(self, found: Measured) -> bool:
        """Whether a measurement is what is written."""
        written = self.measured
        if isinstance(written, float) and isinstance(found, int | float):
            return math.isclose(written, found, rel_tol=NEAR, abs_tol=1e-12)
        return type(written) is type(found) and written == found


class DefaultEntry(Strict):
    """One default. ``agree_on`` is what all do once they are set; ``apart`` what the difference
    makes; ``elsewhere`` what others do, whom nothing is measured of."""

    layers: list[str] = Field(min_length=1)
    parts: str
    apart: str
    agree_on: str
    frameworks: dict[str, Framework] = Field(min_length=1)
    elsewhere: str = ""
    source: str

    def differs(self, names: Sequence[str]) -> bool:
        """Whether these frameworks, all of which have a say, do not do the same."""
        found = [self.frameworks.get(name) for name in names]
        measured = [framework.measured for framework in found if framework is not None]
        if len(measured) < len(names):
            return False
        return any(one != measured[0] for one in measured[1:])


class CatalogueFile(Strict):
    """One file."""

    defaults: dict[str, DefaultEntry]


Entries = Mapping[str, DefaultEntry]


@cache
def groups() -> dict[str, dict[str, DefaultEntry]]:
    """All entries by name, by the names of their files.

    Raises:
        SpecError: a file has another form.
    """
    found: dict[str, dict[str, DefaultEntry]] = {}
    folder = files("harness.specs").joinpath("defaults")
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".yaml"):
            text = path.read_text(encoding="utf-8")
            document = parse(text, f"specs/defaults/{path.name}")
            found[path.name.removesuffix(".yaml")] = validate(document, CatalogueFile).defaults
    return found


def catalogue() -> dict[str, DefaultEntry]:
    """All entries by name."""
    return {name: entry for group in groups().values() for name, entry in group.items()}


def layers(entries: Entries) -> list[str]:
    """All that entries are about, sorted: layers, functions, losses, optimizers and more."""
    return sorted({layer for entry in entries.values() for layer in entry.layers})


def frameworks(entries: Entries) -> list[str]:
    """All frameworks that entries speak of, sorted."""
    return sorted({name for entry in entries.values() for name in entry.frameworks})


def chosen(layer: str | None, between: Sequence[str]) -> dict[str, DefaultEntry]:
    """The entries about a layer, or of a name; ``between`` frameworks, those where they differ.

    Raises:
        UsageError: there is no such layer or framework, or the two frameworks are one.
    """
    entries = catalogue()
    known = frameworks(entries)
    for name in between:
        check_known("framework", name, known)
    if len(set(between)) < len(between):
        raise UsageError(f"{between[0]} is to be held against itself: name another framework")
    if layer is not None:
        about = layers(entries)
        if layer not in about and layer not in entries:
            hint = did_you_mean(layer, [*about, *entries])
            raise UsageError(f"no default of {layer!r} is listed{hint} (known: {', '.join(about)})")
        entries = {n: e for n, e in entries.items() if layer in e.layers or n == layer}
    if between:
        entries = {n: e for n, e in entries.items() if e.differs(between)}
    return entries


def shown(entry: DefaultEntry, between: Sequence[str]) -> dict[str, Framework]:
    """The frameworks of an entry that are asked for; all if none are named."""
    return {n: f for n, f in entry.frameworks.items() if not between or n in between}


def record(name: str, entry: DefaultEntry, between: Sequence[str]) -> dict[str, object]:
    """An entry as plain data."""
    found = entry.model_dump()
    found["frameworks"] = {n: f.model_dump() for n, f in shown(entry, between).items()}
    return {"name": name, **found}
