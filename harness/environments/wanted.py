"""What is asked for with ``harness env``: a backend, the version of its framework, and what else
its environment is to have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.command.options import as_label
from harness.environments import wheel
from harness.errors import UsageError, shorten
from harness.runtime.hookspecs import ENTRY_POINT_GROUP
from harness.runtime.labels import LABEL
from harness.runtime.needs import requirements, unknown_backend
from harness.runtime.plugins import installed

DISTRIBUTION = "backend-comparison-harness"


@dataclass(frozen=True)
class Wanted:
    """An environment to be made: the column that will use it, and what pip is to install.

    ``packed`` are the installed distributions that go into it as they are: the harness, and that
    of the backend where it is another one.
    """

    column: str
    backend: str
    requirements: tuple[str, ...]
    packed: tuple[Distribution, ...]


def read(words: Sequence[str]) -> Wanted:
    """From ``BACKEND==VERSION`` or ``BACKEND@VERSION``, and further requirements.

    Raises:
        UsageError: the first is of another form, its backend is unknown, or another one is no
            requirement.
    """
    backend, version = _pinned(*words[:2])
    _, entry = installed(ENTRY_POINT_GROUP)[backend]
    own = entry.dist.name if entry.dist else DISTRIBUTION
    found = {str(canonicalize_name(r.name)): r for r in requirements(wheel.installed(own), backend)}
    framework = next((n for n in (backend, backend.split("-")[0]) if n in found), backend)
    chosen = {name: _plain(one) for name, one in found.items()}
    chosen[framework] = f"{framework}=={version}"
    for word in words[1:]:
        one = _requirement(word)
        chosen[canonicalize_name(one.name)] = word
    return Wanted(
        f"{backend}@{version.removesuffix('.*')}",
        backend,
        tuple(chosen.values()),
        tuple(wheel.installed(name) for name in dict.fromkeys((DISTRIBUTION, own))),
    )


def column_of(word: str) -> str:
    """The column of an environment that is there: ``torch@2.6``, or as it was asked for.

    Raises:
        UsageError: it is neither.
    """
    column = as_label(word)
    _, at, label = column.partition("@")
    if not at:
        _pinned(word)
    if not LABEL.fullmatch(label):
        raise UsageError(
            "an environment is removed as BACKEND@VERSION, the version of at most 100 letters, "
            f"digits, '.', '_' and '-', found {shorten(word)!r}"
        )
    return column


def _pinned(word: str, after: str = "") -> tuple[str, str]:
    """The backend and the version of a word; ``after`` is the next word."""
    backend, equals, version = word.partition("@" if "@" in word else "==")
    if not equals or not LABEL.fullmatch(version.removesuffix(".*")) or not version[0].isdigit():
        parts = f"{word} {after}".split()
        apart = len(parts) == 2 and parts[1][0].isdigit()
        hint = f"; write {'=='.join(parts)}" if apart else ""
        raise UsageError(
            f"an environment is asked for as BACKEND==VERSION or BACKEND@VERSION, such as "
            f"torch==2.6.0, found {shorten(word)!r}{hint}"
        )
    if backend not in installed(ENTRY_POINT_GROUP):
        raise unknown_backend(backend)
    return backend, version


def _requirement(word: str) -> Requirement:
    try:
        return Requirement(word)
    except InvalidRequirement as error:
        raise UsageError(
            f"{word!r} is not a requirement of pip's: {str(error).splitlines()[0]}"
        ) from None


def _plain(one: Requirement) -> str:
    """A requirement without the marker that it is of an extra."""
    extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
    return f"{one.name}{extras}{one.specifier}"
