"""Definitions that ship and are not used, for one of a folder has their name."""

from __future__ import annotations

from harness.language.library import Library
from harness.language.meaning import known


def hidden(library: Library) -> list[str]:
    """In words, the definitions that ship and are not used, for those of a folder are."""
    told = []
    for (kind, name), (place, shipped) in library.replaced.items():
        same = known(library, kind, name) == name
        means = "means the same" if same else "means something else: no backend has it as its own"
        told.append(f"{kind} {name!r} is that of {place}, not of {shipped}, and {means}")
    return told
