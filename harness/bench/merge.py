"""Results of several runs in one file: shards, machines, versions; nothing twice, nothing mixed.

Speeds are held against each other within a group, whose cells were timed interleaved. So cells of
one group that come from several files become groups of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from harness.bench import json_file
from harness.files.user_file import displayed
from harness.merged import Merged, check_alike, origin_label
from harness.shards import Plans

# What all files must share: a cell's name does not tell all of it.
ALIKE = ("device", "dtype", "path", "threads", "rounds")
Content = dict[str, Any]
Entry = dict[str, Any]


def merge_results(paths: Sequence[Path]) -> Merged:
    """All cells of some files of results, each once from every machine and version.

    Raises:
        DocumentError: a file cannot be read, or is none.
        UsageError: the files are of runs with other options.
    """
    files = {displayed(path): json_file.read(path) for path in paths}
    check_alike((name, _alike(content)) for name, content in files.items())
    merging = _KeptEntries(files)
    plans = _plans(files)
    ended = {name for _, _, name in merging.kept}
    missing, shards = Plans.of(plans).told(len(ended))
    made = _joined(files, merging, plans)
    lacking = len(made["harness"]["without_speed"])
    return Merged(
        kind="results of benchmarks",
        content=json_file.written(made),
        files=len(files),
        cells=len(merging.kept),
        machines=sorted({machine["host"] for machine in merging.machines.values()}),
        counts={"with a speed": len(made["benchmarks"]), "without one": lacking},
        duplicates=merging.duplicates,
        contradictions=merging.contradictions,
        shards=shards,
        missing=missing,
        notes=merging.notes,
    )


def join(contents: Sequence[Content]) -> Content:
    """The content of files of one run, parts of which were made on several machines."""
    files = {str(number): content for number, content in enumerate(contents, start=1)}
    return _joined(files, _KeptEntries(files), _plans(files))


def _plans(files: Mapping[str, Content]) -> list[Mapping[str, Any]]:
    return [plan for content in files.values() for plan in content["harness"].get("plans", ())]


class _KeptEntries:
    """The cells that are kept so far: each with its file, whether it has a speed, and its name."""

    def __init__(self, files: Mapping[str, Content]) -> None:
        self.kept: list[tuple[Entry, bool, str]] = []
        self.duplicates: Counter[str] = Counter()
        self.contradictions: list[str] = []
        self.notes: list[str] = []
        self.machines = {name: _machine(content) for name, content in files.items()}
        self._of: list[tuple[str, str]] = []  # of each kept cell its file, and its versions
        self._known: dict[tuple[str, str, str], list[int]] = {}
        for name, content in files.items():
            for entry, timed in _entries(content):
                self._take(name, content, entry, timed)
        self._name_apart()

    def _take(self, name: str, content: Content, entry: Entry, timed: bool) -> None:
        """A cell of the file ``name``."""
        cell = entry["fullname" if timed else "name"]
        versions = _versions(content, entry)
        known = self._known.setdefault((cell, self.machines[name]["id"], versions), [])
        for number in known:
            other, other_timed, _ = self.kept[number]
            if timed == other_timed and _outcome(entry) == _outcome(other):
                self.duplicates[name] += 1
                return
            sides = ["a speed" if has else "none" for has in (other_timed, timed)]
            told = (
                f"{cell} (on {self.machines[name]['host']}): it has {sides[0]} in "
                f"{self._of[number][0]}, and {sides[1]} in {name}; both are kept"
            )
            (self.notes if timed == other_timed else self.contradictions).append(told)
        known.append(len(self.kept))
        self.kept.append((deepcopy(entry), timed, cell))
        self._of.append((name, versions))

    def _name_apart(self) -> None:
        """Give groups of cells from several files a name each, and cells that are there several
        times, or in a group of several machines, what tells them apart."""
        groups: dict[str, list[int]] = {}
        for number, (entry, _, cell) in enumerate(self.kept):
            backend = entry["params"]["backend"]
            groups.setdefault(cell.replace(f"[{backend}-", "["), []).append(number)
        for numbers in groups.values():
            files = list(dict.fromkeys(self._of[number][0] for number in numbers))
            for number, label in zip(numbers, self._labels(numbers), strict=True):
                entry = self.kept[number][0]
                _rename(entry, label)
                if len(files) > 1 and "group" in entry:
                    entry["group"] += f" (run {files.index(self._of[number][0]) + 1})"

    def _labels(self, numbers: Sequence[int]) -> list[str]:
        """For each cell of a group, what tells it from the others of its name."""
        machines = {self.machines[self._of[number][0]]["id"] for number in numbers}
        hosts = {self.machines[self._of[number][0]]["host"] for number in numbers}
        versions: dict[str, set[str]] = {}
        for number in numbers:
            versions.setdefault(self.kept[number][2], set()).add(self._of[number][1])
        seen: Counter[tuple[str, str]] = Counter()
        found = []
        for number in numbers:
            cell, (file, version) = self.kept[number][2], self._of[number]
            machine = self.machines[file]
            label = origin_label(
                version=version if len(versions[cell]) > 1 else None,
                host=machine["host"] if len(machines) > 1 else None,
                machine=machine["id"] if len(hosts) < len(machines) else None,
            )
            seen[cell, label] += 1
            found.append(label + origin_label(copy=seen[cell, label]))
        return found


def _rename(entry: Entry, label: str) -> None:
    backend = entry["params"]["backend"]
    for field in ("name", "fullname"):
        if field in entry:
            entry[field] = entry[field].replace(f"[{backend}-", f"[{backend}{label}-", 1)
    if isinstance(entry.get("param"), str):
        entry["param"] = entry["param"].replace(backend, backend + label, 1)
    entry["params"]["backend"] = backend + label


def _joined(
    files: Mapping[str, Content], merging: _KeptEntries, plans: Sequence[Mapping[str, Any]]
) -> Content:
    first = next(iter(files.values()))
    info = deepcopy(first["machine_info"])
    for content in files.values():
        info["harness"]["workers"] = {
            **content["machine_info"]["harness"]["workers"],
            **info["harness"]["workers"],
        }
    machines = {machine["id"]: machine for machine in merging.machines.values()}
    if len(machines) > 1:
        info["harness"]["machines"] = list(machines.values())
    further = [content["harness"] for content in files.values()]
    cut = [each["incomplete"] for each in further if "incomplete" in each]
    return {
        **first,
        "machine_info": info,
        "benchmarks": [entry for entry, timed, _ in merging.kept if timed],
        "harness": {
            "without_speed": [entry for entry, timed, _ in merging.kept if not timed],
            "slopes": [slope for each in further for slope in each.get("slopes", ())],
            "tunings": [gain for each in further for gain in each.get("tunings", ())],
            "plans": [dict(plan) for plan in plans],
            **({"incomplete": {k: sum(c[k] for c in cut) for k in cut[0]}} if cut else {}),
        },
    }


def _entries(content: Content) -> Iterator[tuple[Entry, bool]]:
    for entry in content["benchmarks"]:
        yield entry, True
    for entry in content["harness"]["without_speed"]:
        yield entry, False


def _machine(content: Content) -> dict[str, str]:
    machine = content["machine_info"]["harness"]["machine"]
    host = str(machine.get("host", "")) or "an unknown machine"
    return {"id": str(machine.get("id") or host), "host": host, "cpu": str(machine["cpu"])}


def _versions(content: Content, entry: Entry) -> str:
    workers = content["machine_info"]["harness"]["workers"]
    versions = workers.get(entry["params"]["backend"], {}).get("versions", {})
    return ", ".join(f"{name} {text}" for name, text in versions.items())


def _outcome(entry: Entry) -> object:
    return entry["stats"]["data"] if "stats" in entry else entry["reason"]


def _alike(content: Content) -> dict[str, Any]:
    asked = content["machine_info"]["harness"]
    return {name: asked.get(name) for name in ALIKE}
