"""The dependencies in pyproject.toml, the versions that were tested, and the table about them.

Only pyproject.toml has the bounds. ``tried.json`` next to this file records what versions.py ran. A
test compares docs/versions.md with the bounds and the record.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_name("tried.json")
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
# The part that every user installs; the other parts are extras and dependency groups.
CORE = "core"

Run = dict[str, Any]


def project(text: str | None = None) -> dict[str, Any]:
    """Return the tables of pyproject.toml."""
    return tomllib.loads(text or (ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def declared(tables: Mapping[str, Any]) -> dict[str, list[Requirement]]:
    """Return the requirements of every part: the core, each extra, and each dependency group."""
    own = tables["project"]
    name = canonicalize_name(own["name"])
    parts = {CORE: own["dependencies"], **own["optional-dependencies"]}
    parts["build-system"] = tables["build-system"]["requires"]
    for group, entries in tables["dependency-groups"].items():
        parts[group] = [entry for entry in entries if isinstance(entry, str)]
    found = {part: [Requirement(entry) for entry in entries] for part, entries in parts.items()}
    # An extra that only lists extras, or a group that only lists groups, declares nothing itself.
    return {
        part: requirements
        for part, requirements in found.items()
        if requirements and not any(canonicalize_name(r.name) == name for r in requirements)
    }


def extras(tables: Mapping[str, Any]) -> list[str]:
    """Return the extras that declare a requirement themselves."""
    return [part for part in declared(tables) if part in tables["project"]["optional-dependencies"]]


def together(tables: Mapping[str, Any]) -> list[str]:
    """Return the extras that the extra ``all`` installs."""
    (every,) = tables["project"]["optional-dependencies"]["all"]
    return [part for part in extras(tables) if part in Requirement(every).extras]


def lowest(requirement: Requirement) -> Version:
    """Return the lowest version that a requirement allows.

    Raises:
        ValueError: the requirement has no lower bound, or several.
    """
    found = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
    if len(found) != 1:
        raise ValueError(f"{requirement} is to say once, with >=, which version it begins with")
    return found[0]


def read_record() -> list[Run]:
    runs: list[Run] = json.loads(RECORD.read_text(encoding="utf-8"))
    return runs


def _minor(run: Run) -> str:
    return ".".join(run["python"].split(".")[:2])


def _key(run: Run) -> tuple[str, str, tuple[int, ...]]:
    return run["set"], run["part"], tuple(map(int, _minor(run).split(".")))


def keep(run: Run) -> None:
    """Store a run in the record, and replace an earlier run of the same kind."""
    others = [r for r in read_record() if _key(r) != _key(run)] if RECORD.exists() else []
    text = json.dumps(sorted([*others, run], key=_key), indent=1)
    RECORD.write_text(text + "\n", encoding="utf-8")


def passed(run: Run) -> bool:
    return bool(run["commands"]) and all(c["result"] == "passed" for c in run["commands"])


def versions(runs: Iterable[Run], kind: str, name: str) -> list[Version]:
    """Return the versions of a dependency that passed in runs of one kind, in ascending order."""
    found = {
        Version(Version(r["versions"][name]).public)
        for r in runs
        if r["set"] == kind and passed(r) and name in r["versions"]
    }
    return sorted(found)


def complaints(tables: Mapping[str, Any], runs: list[Run]) -> Iterator[str]:
    """Yield the bounds in pyproject.toml that no recorded run confirms."""
    for run in runs:
        if not passed(run):
            yield f"{run['set']} {run['part']} on Python {run['python']} did not pass"
    for part, requirements in declared(tables).items():
        for requirement in requirements:
            tried = versions(runs, "lowest", requirement.name)
            if lowest(requirement) not in tried:
                found = ", ".join(map(str, tried)) or "none"
                yield f"{part}: {requirement} begins with a version that was not tried: {found}"
            newest = versions(runs, "newest", requirement.name)
            if not newest or newest[-1] not in requirement.specifier:
                found = ", ".join(map(str, newest)) or "none"
                yield f"{part}: {requirement} has no newest version that was tried: {found}"


def pythons(runs: list[Run]) -> str:
    """Return the lowest and the newest Python that passed, in the words of docs/versions.md."""
    tried = sorted({Version(r["python"]) for r in runs if passed(r)})
    return f"{tried[0]} is the lowest Python that was tested, and {tried[-1]} is the newest"


def bound(requirement: Requirement) -> str:
    """Format the specifier of a requirement with its lower bound first."""
    return ",".join(sorted(map(str, requirement.specifier), reverse=True))


def with_rows(page: str, tables: Mapping[str, Any], runs: list[Run]) -> str:
    """Return docs/versions.md with bound and newest tested version updated in every row.

    Raises:
        ValueError: a row is for a dependency that pyproject.toml does not declare, or a declared
            dependency has no row.
    """
    every = {canonicalize_name(r.name): r for part in declared(tables).values() for r in part}
    shown = []

    def row(match: re.Match[str]) -> str:
        requirement = every.get(canonicalize_name(match[1]))
        if requirement is None:
            raise ValueError(f"docs/versions.md has a row of {match[1]}, which is not declared")
        shown.append(canonicalize_name(match[1]))
        new = versions(runs, "newest", requirement.name)
        cells = [bound(requirement), new[-1] if new else "none"]
        return f"| `{match[1]}` | " + "".join(f"{cell} | " for cell in cells).rstrip()

    written = re.sub(r"^\| `([\w-]+)` \|(?: [^|]*\|){2}", row, page, flags=re.MULTILINE)
    missing = sorted(every.keys() - set(shown))
    if missing:
        raise ValueError(f"docs/versions.md has no row of {', '.join(missing)}")
    return written


def constraints() -> str:
    """Return pip constraints for every distribution of this environment except the project itself.

    A local version such as ``2.13.0+cpu`` is a build of a public version. The constraint is the
    public version, because only public versions are available everywhere.
    """
    own = canonicalize_name(project()["project"]["name"])
    found = {canonicalize_name(d.metadata["Name"]): Version(d.version) for d in distributions()}
    lines = [f"{name}=={v.public}" for name, v in sorted(found.items()) if name not in (own, "pip")]
    return "\n".join(["# Written by make constraints: what CI ran.", *lines]) + "\n"
