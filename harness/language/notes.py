"""What a user should know of definitions that are right, but may not be what was meant."""

from __future__ import annotations

from harness.language.library import Library
from harness.language.meaning import known


def notes(library: Library) -> list[str]:
    """Return in words: the definitions that ship and are not used, since a folder has others of
    their names, and attributes of which a definition says that they are unusual."""
    told = []
    for (kind, name), (place, shipped) in library.replaced.items():
        same = known(library, kind, name) == name
        means = "means the same" if same else "means something else: no backend has it as its own"
        told.append(f"{kind} {name!r} is that of {place}, not of {shipped}, and {means}")
    return [*told, *(f"{place}: {text}" for place, text in library.unusual.items())]
