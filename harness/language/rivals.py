"""Two files with one name: a name means one file in a run, or nobody knows which one was meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

from harness.errors import Place, SpecError
from harness.files.user_file import FileFault, displayed, read_bytes
from harness.language.source import MAX_BYTES

# Not parsed: a file beside the one that is wanted may be wrong in any way.
_DECLARED = r"^{}:[ \t]*[\"']?([^\s\"'#]+)"


def same_file(one: Path | Traversable | None, other: Path | Traversable | None) -> bool:
    """Whether two paths are one file, however they are spelled and linked."""
    if not isinstance(one, Path) or not isinstance(other, Path):
        return one is not None and one == other
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def declaring(kind: str, paths: Iterable[Path]) -> dict[str, list[tuple[Path, Place]]]:
    """By name, the files that declare it, each with the place of the name."""
    pattern = re.compile(_DECLARED.format(kind), re.MULTILINE)
    found: dict[str, list[tuple[Path, Place]]] = {}
    for path in paths:
        try:
            text = read_bytes(path, MAX_BYTES, "a spec").decode("utf-8", "replace")
        except FileFault:
            continue
        if match := pattern.search(text):
            start = match.start(1)
            line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
            place = Place(displayed(path), line, column)
            found.setdefault(match[1], []).append((path, place))
    return found


def clash(kind: str, name: str, place: Place, other: Place) -> SpecError:
    """The error of a file at ``place`` that bears the name of another one."""
    return SpecError(
        f"{kind} {name!r} stands in another file, too: {other}. Under one name the results of the "
        f"two could not be told apart: give one of them another name",
        place,
    )


def first_clash(
    kind: str, name: str, place: Place, path: Path, others: Sequence[tuple[Path, Place]]
) -> SpecError | None:
    """The error of the first other file that bears the name of the file ``path``, if any does."""
    rivals = (other for rival, other in others if not same_file(rival, path))
    other = next(rivals, None)
    return None if other is None else clash(kind, name, place, other)
