"""Results of several runs in one file: shards, machines, versions; nothing twice, nothing mixed.

Speeds are held against each other within a group, whose cells were timed interleaved. So cells of
one group that come from several files become groups of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from harness.files.user_file import displayed
from harness.runs.merged import Merged, check_alike, models_apart, origin_label
from harness.runs.shards import Plans, joined
from harness.timing import json_file
from harness.timing.request import group_name

# What all files must share: a cell's name does not tell all of it.
ALIKE = ("device", "dtype", "path", "threads", "rounds")
Content = dict[str, Any]
Entry = dict[str, Any]
Machine = dict[str, str]
# Of the parameters of a cell, those that are no sizes of its model.
OF_EVERY_CELL = frozenset(
    ("spec", "backend", "mode", "batch", "time", "dtype", "device", "path"),
)


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
    missing, shards = Plans.of(plans).told(merging.ended)
    made = _joined(files, merging, plans)
    models = [
        (name, str(each["params"]["spec"]), each["extra_info"].get("model"))
        for name, content in files.items()
        for each in content["benchmarks"]
    ]
    lacking = len(made["harness"]["without_speed"])
    return Merged(
        kind="results of benchmarks",
        content=json_file.written(made),
        files=len(files),
        cells=len(merging.kept),
        machines=sorted({machine["host"] for machine in merging.machines.values()}),
        counts={"with a speed": len(made["benchmarks"]), "without one": lacking},
        duplicates=merging.duplicates,
        contradictions=[*models_apart(models), *merging.contradictions],
        shards=shards,
        missing=missing,
        notes=merging.notes,
    )


def join(contents: Sequence[Content]) -> Content:
    """The content of files of one run, parts of which were made on several machines."""
    files = {str(number): content for number, content in enumerate(contents, start=1)}
    return _joined(files, _KeptEntries(files), _plans(files))


def _plans(files: Mapping[str, Content]) -> list[Mapping[str, Any]]:
    """The plans of all runs, each shard of each once."""
    every = (plan for content in files.values() for plan in content["harness"].get("plans", ()))
    return [*{(plan["digest"], plan["shard"]): plan for plan in every}.values()]


class _KeptEntries:
    """The cells that are kept so far: each with whether it has a speed, and its name in its run.

    Each says itself where it comes from (``origin``), so that joining files that were joined
    before doubles nothing and mixes nothing.
    """

    def __init__(self, files: Mapping[str, Content]) -> None:
        self.kept: list[tuple[Entry, bool, str]] = []
        self.duplicates: Counter[str] = Counter()
        self.contradictions: list[str] = []
        self.notes: list[str] = []
        self.machines: dict[str, Machine] = {}
        self._files: list[str] = []  # of each kept cell
        self._known: dict[tuple[str, str, str], list[int]] = {}
        for name, content in files.items():
            here = _machine(content)
            entries = [(_original(content, entry), timed) for entry, timed in _entries(content)]
            for machine in [entry["origin"]["machine"] for entry, _ in entries] or [here]:
                self.machines.setdefault(machine["id"], machine)
            for entry, timed in entries:
                self._take(name, entry, timed)
        self._name_apart()

    @property
    def ended(self) -> set[str]:
        """The names of the cells in the plans of their runs."""
        entries = [entry for entry, *_ in self.kept]
        return {_name_in_plan(each["params"], each["origin"]["backend"]) for each in entries}

    def _take(self, name: str, entry: Entry, timed: bool) -> None:
        """A cell of the file ``name``."""
        cell, origin = entry["fullname" if timed else "name"], entry["origin"]
        machine = origin["machine"]
        known = self._known.setdefault((cell, machine["id"], origin["versions"]), [])
        for number in known:
            other, other_timed, _ = self.kept[number]
            if timed == other_timed and _outcome(entry) == _outcome(other):
                self.duplicates[name] += 1
                return
            sides = ["a speed" if has else "none" for has in (other_timed, timed)]
            told = (
                f"{cell} (on {machine['host']}): it has {sides[0]} in {self._files[number]}, and "
                f"{sides[1]} in {name}; both are kept"
            )
            (self.notes if timed == other_timed else self.contradictions).append(told)
        known.append(len(self.kept))
        self.kept.append((entry, timed, cell))
        self._files.append(name)

    def _name_apart(self) -> None:
        """Give groups of cells from several runs a name each, and cells that are there several
        times, or in a group of several machines, what tells them apart."""
        groups: dict[str, list[int]] = {}
        for number, (entry, _, cell) in enumerate(self.kept):
            backend = entry["params"]["backend"]
            groups.setdefault(cell.replace(f"[{backend}-", "["), []).append(number)
        for numbers in groups.values():
            entries = [self.kept[number][0] for number in numbers]
            runs = list(dict.fromkeys(entry["origin"]["run"] for entry in entries))
            for entry, label in zip(entries, self._labels(numbers), strict=True):
                _rename(entry, entry["params"]["backend"], entry["params"]["backend"] + label)
                if len(runs) > 1 and "group" in entry:
                    entry["group"] += f" (run {runs.index(entry['origin']['run']) + 1})"

    def _labels(self, numbers: Sequence[int]) -> list[str]:
        """For each cell of a group, what tells it from the others of its name."""
        origins = [self.kept[number][0]["origin"] for number in numbers]
        machines = {origin["machine"]["id"] for origin in origins}
        hosts = {origin["machine"]["host"] for origin in origins}
        versions: dict[str, set[str]] = {}
        for number, origin in zip(numbers, origins, strict=True):
            versions.setdefault(self.kept[number][2], set()).add(origin["versions"])
        seen: Counter[tuple[str, str]] = Counter()
        found = []
        for number, origin in zip(numbers, origins, strict=True):
            cell, machine = self.kept[number][2], origin["machine"]
            label = origin_label(
                version=origin["versions"] if len(versions[cell]) > 1 else None,
                host=machine["host"] if len(machines) > 1 else None,
                machine=machine["id"] if len(hosts) < len(machines) else None,
            )
            seen[cell, label] += 1
            found.append(label + origin_label(copy=seen[cell, label]))
        return found


def _original(content: Content, entry: Entry) -> Entry:
    """A cell as its run had it, with its origin: that run, its machine and its versions."""
    found = deepcopy(entry)
    if "origin" not in found:
        found["origin"] = {
            "backend": entry["params"]["backend"],
            "machine": _machine(content),
            "versions": _versions(content, entry),
            "run": _checksum(content),
            **({"group": entry["group"]} if "group" in entry else {}),
        }
        return found
    origin = found["origin"]
    _rename(found, found["params"]["backend"], origin["backend"])
    if "group" in found:
        found["group"] = origin.get("group", found["group"])
    return found


def _rename(entry: Entry, backend: str, name: str) -> None:
    for field in ("name", "fullname"):
        if field in entry:
            entry[field] = entry[field].replace(f"[{backend}-", f"[{name}-", 1)
    if isinstance(entry.get("param"), str):
        entry["param"] = entry["param"].replace(backend, name, 1)
    entry["params"]["backend"] = name


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
    if len(merging.machines) > 1:
        info["harness"]["machines"] = list(merging.machines.values())
    further = [content["harness"] for content in files.values()]
    cut = [each["incomplete"] for each in further if "incomplete" in each]
    commands = [command for each in further for command in each.get("commands", ())]
    return {
        **first,
        "machine_info": info,
        "benchmarks": [entry for entry, timed, _ in merging.kept if timed],
        "harness": {
            "without_speed": [entry for entry, timed, _ in merging.kept if not timed],
            "slopes": [slope for each in further for slope in each.get("slopes", ())],
            "tunings": [gain for each in further for gain in each.get("tunings", ())],
            "plans": [dict(plan) for plan in plans],
            **({"commands": _distinct(commands)} if commands else {}),
            **({"incomplete": {k: sum(c[k] for c in cut) for k in cut[0]}} if cut else {}),
        },
    }


def _distinct(commands: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(command) for command in dict.fromkeys(map(tuple, commands))]


def _entries(content: Content) -> Iterator[tuple[Entry, bool]]:
    for entry in content["benchmarks"]:
        yield entry, True
    for entry in content["harness"]["without_speed"]:
        yield entry, False


def _name_in_plan(params: Mapping[str, Any], backend: str) -> str:
    """The name of a cell as :class:`harness.timing.plan.BenchPlan` has it."""
    sizes = {name: size for name, size in params.items() if name not in OF_EVERY_CELL}
    parts = (params.get(name) for name in ("mode", "spec", "batch", "time"))
    return joined([joined(group_name(parts, sizes)), backend])


def _checksum(content: Content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _machine(content: Content) -> Machine:
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
