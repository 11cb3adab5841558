"""Results of several runs in one file: shards, machines, versions; nothing twice, nothing mixed.

Speeds are held against each other within a group, whose cells were timed interleaved. So cells of
one group that come from several files become groups of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.files.user_file import displayed
from harness.results.environment import MachineOf, WorkerSaid
from harness.results.speeds import (
    Further,
    Incomplete,
    NoSpeed,
    Parameters,
    SpeedEntry,
    SpeedFile,
    SpeedOrigin,
    Timed,
)
from harness.runs.merged import Merged, check_alike, models_apart, origin_label
from harness.runs.plans import Plans, RunPlan, joined
from harness.timing import json_file
from harness.timing.request import group_name

E = TypeVar("E", bound=SpeedEntry)
# What all files must share: a cell's name does not tell all of it.
ALIKE = ("device", "dtype", "path", "threads", "rounds")
# Of the parameters of a cell, those that are no sizes of its model.
OF_EVERY_CELL = frozenset(("dtype", "device", "path"))


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
        (name, each.params.spec, each.extra_info.model)
        for name, content in files.items()
        for each in content.benchmarks
    ]
    return Merged(
        kind="results of benchmarks",
        content=json_file.written(made),
        files=len(files),
        cells=len(merging.kept),
        machines=sorted({machine.host for machine in merging.machines.values()}),
        counts={"with a speed": len(made.timed), "without one": len(made.lacking)},
        duplicates=merging.duplicates,
        contradictions=[*models_apart(models), *merging.contradictions],
        shards=shards,
        missing=missing,
        notes=merging.notes,
    )


def join(contents: Sequence[SpeedFile]) -> SpeedFile:
    """The content of files of one run, parts of which were made on several machines."""
    files = {str(number): content for number, content in enumerate(contents, start=1)}
    return _joined(files, _KeptEntries(files), _plans(files))


def _plans(files: Mapping[str, SpeedFile]) -> list[RunPlan]:
    """The plans of all runs, each shard of each once."""
    every = (plan for content in files.values() for plan in content.harness.plans)
    return [*{(plan.digest, plan.shard): plan for plan in every}.values()]


class _KeptEntries:
    """The cells that are kept so far: each with its name in its run and its origin.

    Each says itself where it comes from (``origin``), so that joining files that were joined
    before doubles nothing and mixes nothing.
    """

    def __init__(self, files: Mapping[str, SpeedFile]) -> None:
        self.kept: list[tuple[SpeedEntry, str, SpeedOrigin]] = []
        self.duplicates: Counter[str] = Counter()
        self.contradictions: list[str] = []
        self.notes: list[str] = []
        self.machines: dict[str, MachineOf] = {}
        self._files: list[str] = []  # of each kept cell
        self._known: dict[tuple[str, str, str], list[int]] = {}
        for name, content in files.items():
            own = _checksum(content)
            found = [_original(content, own, entry) for entry in content.entries]
            machines = [origin.machine for _, origin in found]
            for machine in machines or [_machine(content)]:
                self.machines.setdefault(machine.id, machine)
            for entry, origin in found:
                self._take(name, entry, origin)
        self._name_apart()

    @property
    def ended(self) -> set[str]:
        """The names of the cells in the plans of their runs."""
        return {_name_in_plan(entry.params, origin.backend) for entry, _, origin in self.kept}

    def _take(self, name: str, entry: SpeedEntry, origin: SpeedOrigin) -> None:
        """A cell of the file ``name``."""
        cell, machine = entry.cell, origin.machine
        known = self._known.setdefault((cell, machine.id, origin.versions), [])
        for number in known:
            other, *_ = self.kept[number]
            if type(entry) is type(other) and entry.outcome == other.outcome:
                self.duplicates[name] += 1
                return
            sides = ["a speed" if isinstance(e, Timed) else "none" for e in (other, entry)]
            told = (
                f"{cell} (on {machine.host}): it has {sides[0]} in {self._files[number]}, and "
                f"{sides[1]} in {name}; both are kept"
            )
            (self.notes if sides[0] == sides[1] else self.contradictions).append(told)
        known.append(len(self.kept))
        self.kept.append((entry, cell, origin))
        self._files.append(name)

    def _name_apart(self) -> None:
        """Give groups of cells from several runs a name each, and cells that are there several
        times, or in a group of several machines, what tells them apart."""
        groups: dict[str, list[int]] = {}
        for number, (entry, cell, _) in enumerate(self.kept):
            groups.setdefault(cell.replace(f"[{entry.params.backend}-", "["), []).append(number)
        for numbers in groups.values():
            runs = list(dict.fromkeys(self.kept[number][2].run for number in numbers))
            for number, label in zip(numbers, self._labels(numbers), strict=True):
                entry, cell, origin = self.kept[number]
                entry = _renamed(entry, entry.params.backend + label)
                if len(runs) > 1 and isinstance(entry, Timed):
                    group = f"{entry.group} (run {runs.index(origin.run) + 1})"
                    entry = entry.model_copy(update={"group": group})
                self.kept[number] = entry, cell, origin

    def _labels(self, numbers: Sequence[int]) -> list[str]:
        """For each cell of a group, what tells it from the others of its name."""
        kept = [self.kept[number][1:] for number in numbers]
        machines = {origin.machine.id for _, origin in kept}
        hosts = {origin.machine.host for _, origin in kept}
        versions: dict[str, set[str]] = {}
        for cell, origin in kept:
            versions.setdefault(cell, set()).add(origin.versions)
        seen: Counter[tuple[str, str]] = Counter()
        found = []
        for cell, origin in kept:
            label = origin_label(
                version=origin.versions if len(versions[cell]) > 1 else None,
                host=origin.machine.host if len(machines) > 1 else None,
                machine=origin.machine.id if len(hosts) < len(machines) else None,
            )
            seen[cell, label] += 1
            found.append(label + origin_label(copy=seen[cell, label]))
        return found


def _original(content: SpeedFile, run: str, entry: SpeedEntry) -> tuple[SpeedEntry, SpeedOrigin]:
    """A cell as its run had it, with its origin: that run, its machine and its versions."""
    group = {"group": entry.group} if isinstance(entry, Timed) else {}
    origin = entry.origin
    if origin is None:
        said = content.environment.workers.get(entry.params.backend)
        origin = SpeedOrigin(
            backend=entry.params.backend,
            machine=_machine(content),
            versions=said.told if said else "",
            run=run,
            **group,
        )
        return entry.model_copy(update={"origin": origin}), origin
    entry = _renamed(entry, origin.backend)
    if origin.group and isinstance(entry, Timed):
        entry = entry.model_copy(update={"group": origin.group})
    return entry, origin


def _renamed(entry: E, name: str) -> E:
    """A cell under another name of its backend."""
    backend = entry.params.backend
    told: dict[str, object] = {"params": entry.params.model_copy(update={"backend": name})}
    told["name"] = entry.name.replace(f"[{backend}-", f"[{name}-", 1)
    if isinstance(entry, Timed):
        told["fullname"] = entry.fullname.replace(f"[{backend}-", f"[{name}-", 1)
        told |= {"param": entry.param.replace(backend, name, 1)} if entry.param else {}
    return entry.model_copy(update=told)


def _joined(
    files: Mapping[str, SpeedFile], merging: _KeptEntries, plans: Sequence[RunPlan]
) -> SpeedFile:
    first, *_ = files.values()
    workers: dict[str, WorkerSaid] = {}
    for content in files.values():
        workers = {**content.environment.workers, **workers}
    told: dict[str, object] = {"workers": workers}
    if len(merging.machines) > 1:
        told["machines"] = list(merging.machines.values())
    info = {"harness": first.environment.model_copy(update=told)}
    further = [content.harness for content in files.values()]
    found: dict[str, Any] = {
        "without_speed": [entry for entry, *_ in merging.kept if isinstance(entry, NoSpeed)],
        "slopes": [slope for each in further for slope in each.slopes],
        "tunings": [gain for each in further for gain in each.tunings],
        "plans": list(plans),
    }
    commands = dict.fromkeys(tuple(words) for each in further for words in each.commands)
    if commands:
        found["commands"] = [list(words) for words in commands]
    if cut := [each.incomplete for each in further if each.incomplete]:
        done, planned = sum(each.done for each in cut), sum(each.planned for each in cut)
        found["incomplete"] = Incomplete(done=done, planned=planned)
    return first.model_copy(
        update={
            "machine_info": first.machine_info.model_copy(update=info),
            "benchmarks": [entry for entry, *_ in merging.kept if isinstance(entry, Timed)],
            "harness": Further(**found),
        }
    )


def _name_in_plan(params: Parameters, backend: str) -> str:
    """The name of a cell as :class:`harness.timing.plan.BenchPlan` has it."""
    further = (params.model_extra or {}).items()
    sizes = {name: size for name, size in further if name not in OF_EVERY_CELL}
    parts = params.mode, params.spec, params.batch, params.time
    return joined([joined(group_name(parts, sizes)), backend])


def _checksum(content: SpeedFile) -> str:
    text = json.dumps(content.plain(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _machine(content: SpeedFile) -> MachineOf:
    machine = content.environment.machine
    host = machine.host or "an unknown machine"
    return MachineOf(id=machine.id or host, host=host, cpu=machine.cpu or "")


def _alike(content: SpeedFile) -> dict[str, object]:
    return {name: getattr(content.environment, name) for name in ALIKE}
