"""The record of the ratios: what was found so far, and on which machine each pair was.

The sides of a ratio always ran together, so that pairs of several machines may stand in one record;
a pair names its machine by its place in ``machines``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_benchmark.utils import safe_dumps

from harness.files.atomic import write_whole

# Of a machine: what makes two runs on it comparable, without names and places.
MACHINE = ("cpu", "cores", "usable_cores", "memory", "architecture", "python")


def read(record: Path) -> dict[str, Any]:
    """What was found so far."""
    if not record.exists():
        return {"pairs": {}, "commands": {}, "machines": []}
    found: dict[str, Any] = json.loads(record.read_text())
    return found


def keep(record: Path, found: dict[str, Any]) -> None:
    """Write what was found so far, whole, in place of what there was."""
    write_whole(record, safe_dumps(found, ensure_ascii=True, indent=4).encode())


def add(found: dict[str, Any], name: str, pair: dict[str, Any]) -> None:
    """Add a pair to a record, with the place of its machine and the machine's load in place of the
    environment that it was measured in."""
    environment = pair.pop("environment")
    machine = {
        "machine": {part: environment["machine"].get(part) for part in MACHINE},
        "threads": environment["threads"],
        "rounds": environment["rounds"],
    }
    versions: dict[str, str] = {}
    for worker in environment["workers"].values():
        versions |= worker["versions"]
    found["pairs"][name] = {
        **pair,
        "machine": _place(found["machines"], machine, versions),
        "load": environment["load"][0],
    }


def _place(
    machines: list[dict[str, Any]], machine: dict[str, Any], versions: dict[str, str]
) -> int:
    """Where the machine stands among those of a record, with these versions and maybe others."""
    for place, known in enumerate(machines):
        same = all(known[part] == value for part, value in machine.items())
        if same and all(known["versions"].get(n, v) == v for n, v in versions.items()):
            known["versions"] |= versions
            return place
    machines.append({**machine, "versions": versions})
    return len(machines) - 1


def letter(place: int) -> str:
    """The name of a machine on the page."""
    return chr(ord("A") + place)


def of_machine(pairs: Mapping[str, Any], place: int) -> dict[str, Any]:
    """The pairs that were measured on one of the machines."""
    return {name: pair for name, pair in pairs.items() if pair["machine"] == place}
