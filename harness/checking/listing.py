"""What is installed and what ships, by kind: for ``harness list``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.checking.explain_definition import INITIALIZERS
from harness.language.library import FOLDERS, Library
from harness.runtime.hookspecs import FORMATS_GROUP
from harness.runtime.needs import own
from harness.runtime.plugins import Origin, available

# The kinds of definitions, by the word for several of them.
DEFINED = {folder: kind for kind, folder in FOLDERS.items()}


def as_data(kinds: Sequence[str], folders: tuple[Path, ...]) -> dict[str, Any]:
    """Plugins with their origin by the name of their kind, names of definitions by theirs."""
    library = Library(folders)
    found: dict[str, Any] = {}
    for kind in kinds:
        if kind in DEFINED:
            found[DEFINED[kind]] = library.names(DEFINED[kind])
        elif kind == "initializers":
            found["initializer"] = tuple(INITIALIZERS)
        else:
            lacking = own() if kind == "backends" else {}
            found[kind] = {
                name: {
                    "distribution": o.distribution,
                    "version": o.version,
                    "module": o.module,
                    **({"runs": name not in lacking} if kind == "backends" else {}),
                    **({"install": lacking[name]} if name in lacking else {}),
                }
                for name, o in _plugins(kind).items()
            }
    return found


def as_text(kinds: Sequence[str], folders: tuple[Path, ...], described: bool) -> str:
    """A paragraph for each kind; ``described`` gives each definition its summary."""
    library = Library(folders)
    return "\n".join(line for kind in kinds for line in _lines(kind, library, described))


def _lines(kind: str, library: Library, described: bool) -> Iterator[str]:
    yield kind
    if kind in DEFINED:
        rows = dict.fromkeys(library.names(DEFINED[kind]), "")
        if described:
            rows = {n: library.find(DEFINED[kind], n).content.summary for n in rows}
    elif kind == "initializers":
        rows = {name: meaning if described else "" for name, meaning in INITIALIZERS.items()}
    else:
        lacking = own() if kind == "backends" else {}
        rows = {
            n: f"{o.distribution} {o.version} ({o.module})"
            + (f"; cannot run, its framework is missing: {lacking[n]}" if n in lacking else "")
            for n, o in _plugins(kind).items()
        }
    widest = max(map(len, rows), default=0)
    for name, text in rows.items():
        yield f"  {name:{widest}}  {' '.join(text.split())}".rstrip()


def _plugins(kind: str) -> dict[str, Origin]:
    return available() if kind == "backends" else available(FORMATS_GROUP)
