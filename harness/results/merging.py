"""Merging of record files, or of files of speeds, from several runs (shards, machines, versions).

Speeds can be compared only within a group, whose cells were timed in turn on one machine. So if
several files have a group with the same name, the groups get different names.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.errors import EXIT_COULD_NOT_RUN, EXIT_FAILED, EXIT_PASSED, UsageError, several
from harness.results.cell import Cell, cell_name
from harness.results.environment import MachineOf, WorkerDescription
from harness.results.file import RecordError, encode_line
from harness.results.findings import VERDICTS, gravest
from harness.results.lines import Head, Pair, RecordLine
from harness.results.records import CellBlock, CellOrigin, L, Records, origin_label
from harness.results.speeds import (
    Further,
    Incomplete,
    NoSpeed,
    Parameters,
    SpeedEntry,
    SpeedFile,
    SpeedOrigin,
    Timed,
    encode_speeds,
    group_name,
)
from harness.runs.plans import Plans, RunPlan, join_name

# Options that must be equal in all files, because the name of a cell does not contain all of them.
SAME_OPTIONS = ("device", "dtype", "path", "threads", "rounds")
# Parameters of a cell that are not sizes of its model.
OF_EVERY_CELL = frozenset(("dtype", "device", "path"))


@dataclass(frozen=True)
class Merged:
    """The content of a merged file, and remarks about the merging.

    - ``duplicates`` maps a file to the number of its cells that an earlier file has with the same
      outcome.
    - ``contradictions`` describes the cells that have different outcomes in different files.
    - ``shards`` describes which shards (parts) of each run the files contain.
    - ``missing`` is the number of planned cells that no file contains.
    """

    kind: str
    content: bytes
    files: int
    cells: int
    machines: Sequence[str]
    counts: Mapping[str, int]
    duplicates: Mapping[str, int]
    contradictions: Sequence[str]
    shards: Sequence[str]
    missing: int
    notes: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """The exit code: 1 for contradictions, 3 for missing cells, otherwise 0."""
        if self.contradictions:
            return EXIT_FAILED
        return EXIT_COULD_NOT_RUN if self.missing else EXIT_PASSED

    def lines(self, place: str) -> list[str]:
        """Return the remarks as lines of text; ``place`` is the name of the merged file."""
        texts = [
            f"{name}: {_count_cells(count)} {verb} also in another file, with the same outcome, "
            f"and {verb} kept once"
            for name, count in self.duplicates.items()
            for verb in ["is" if count == 1 else "are"]
        ]
        texts += [*self.contradictions, *self.notes]
        machines = several(len(self.machines), "machine")
        files = several(self.files, "file")
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        texts.append(
            f"{self.kind}: {_count_cells(self.cells)} from {files} and {machines}, in {place}"
            + (f": {counts}" if counts else "")
        )
        missing_texts = [
            *self.shards,
            *([f"{_count_cells(self.missing)} missing"] if self.missing else []),
        ]
        return [*texts, *(["; ".join(missing_texts)] if missing_texts else [])]

    def record(self) -> dict[str, object]:
        """Return a dictionary with all fields except ``content``, for JSON output."""
        return {name: value for name, value in vars(self).items() if name != "content"}


def check_same_options(
    runs: Iterable[tuple[str, Mapping[str, object]]], format_value: Callable[[object], str] = str
) -> None:
    """Check that all runs have the same options. A run is a pair: its file name, and its options by
    name.

    Raises:
        UsageError: the options of a run differ from the options of the first run.
    """
    (first, before), *others = runs
    for name, options in others:
        differences = [
            f"{option} {format_value(before.get(option))} and {format_value(options.get(option))}"
            for option in dict.fromkeys([*before, *options])
            if before.get(option) != options.get(option)
        ]
        if differences:
            raise UsageError(
                f"{first} and {name} are from runs with different options "
                f"({'; '.join(differences)}): merge only runs with the same options"
            )


def describe_different_models(results: Iterable[tuple[str, str, str | None]]) -> list[str]:
    """Return remarks on specs that have the same name in several results, but are different models.

    Each result is a tuple: file name, spec, and an identifier of the model (None if it was not
    recorded).
    """
    files: dict[str, dict[str, None]] = {}
    models: dict[str, set[str]] = {}
    for name, spec, model in results:
        if model is not None:
            files.setdefault(spec, {})[name] = None
            models.setdefault(spec, set()).add(model)
    return [
        f"{spec}: the results in {', '.join(files[spec])} are from {len(of_it)} different "
        "models with this name (the spec, its sizes or the generated program differ); all are kept"
        for spec, of_it in models.items()
        if len(of_it) > 1
    ]


def _count_cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count:,} cells"


def merge_records(files: Mapping[str, Records]) -> Merged:
    """Merge record files. If files have the same result of a cell, from the same machine and
    version, it is kept once.

    Raises:
        RecordError: a file does not begin with a head (the first line of a run).
        UsageError: the files are of runs with different options.
    """
    _check_heads(files)
    heads = _remove_duplicates([h for records in files.values() for h in records.of_kind(Head)])
    merging = _KeptBlocks()
    models: list[tuple[str, str, str | None]] = []
    for name, records in files.items():
        for cell, origins in records.cells.items():
            for origin, block in origins.items():
                merging.add(name, cell, origin, block)
                models.append((name, cell.spec, block.model))
    kept = merging.kept
    plans = Plans.of(head.plan for head in heads if head.plan)
    missing, shards = plans.describe_missing({join_name(cell_name(cell)) for cell, _ in kept})
    lines = _merged_lines(files, heads, kept, len(kept) + missing)
    verdicts = Counter(gravest([line.verdict for line in b.results]) for b in kept.values())
    torn = sum(records.torn is not None for records in files.values())
    return Merged(
        kind="records of checks",
        content=b"".join(encode_line(line.plain()) for line in lines),
        files=len(files),
        cells=len(kept),
        machines=sorted({origin.host for _, origin in kept}),
        counts={verdict: verdicts[verdict] for verdict in VERDICTS if verdicts[verdict]},
        duplicates=merging.duplicates,
        contradictions=[*describe_different_models(models), *merging.contradictions],
        shards=shards,
        missing=missing,
        notes=[f"{torn} of the files end in an incomplete line, which is left out"] if torn else [],
    )


def _check_heads(files: Mapping[str, Records]) -> None:
    """Raise an error if a file does not begin with a head, or if runs have different options."""
    for name, records in files.items():
        if records.lines and not isinstance(records.lines[0], Head):
            raise RecordError(
                f"{name}:1: a record file must begin with a line of kind 'head', which describes "
                f"the plan; found {records.lines[0].kind!r}: give the complete file"
            )
    asked = [
        (name, head.request.plain() if head.request else {})
        for name, records in files.items()
        for head in records.of_kind(Head)
    ]
    if asked:
        check_same_options(asked, json.dumps)


def _merged_lines(
    files: Mapping[str, Records],
    heads: Sequence[Head],
    kept: Mapping[tuple[Cell, CellOrigin], CellBlock],
    planned: int,
) -> list[RecordLine]:
    """Return the lines of the merged file, which plans ``planned`` cells."""
    # A reader of an interrupted run counts the cells after the last head. So this head plans all
    # cells.
    lines: list[RecordLine] = [*heads]
    for last in heads[-1:]:
        lines[-1] = last.model_copy(update={"planned": planned})
    for block in kept.values():
        lines += [block.begin, *block.results, block.end]
    # For each cell that never ended, the line of its last start.
    ended = {cell for cell, _ in kept}
    begun = {cell: line for records in files.values() for cell, line in records.begun.items()}
    lines += [line for cell, line in begun.items() if cell not in ended]
    # Pairs come after all cells: a reader drops a pair if a cell of the pair begins later.
    lines += _remove_duplicates([p for records in files.values() for p in records.of_kind(Pair)])
    return lines


class _KeptBlocks:
    """The results that the merged file will contain. If files contradict each other about a cell,
    both results are kept, as numbered copies."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Cell, CellOrigin], CellBlock] = {}
        self.duplicates: Counter[str] = Counter()
        self.contradictions: list[str] = []
        self._blocks_by_origin: dict[tuple[Cell, CellOrigin], list[tuple[str, CellBlock]]] = {}

    def add(self, name: str, cell: Cell, origin: CellOrigin, block: CellBlock) -> None:
        """Add ``block``, the result of a cell in the file ``name``, unless an equal result of the
        same ``origin`` (machine and version) was added before."""
        blocks = self._blocks_by_origin.setdefault((cell, replace(origin, copy=1)), [])
        model = block.model
        alike = [(n, other) for n, other in blocks if other.model in (model, None) or not model]
        if any(other.verdicts == block.verdicts for _, other in alike):
            self.duplicates[name] += 1
            return
        if alike:
            self.contradictions.append(
                _describe_contradiction(cell, origin, *alike[0], name, block)
            )
        blocks.append((name, block))
        copy = len(blocks)
        updates: dict[str, object] = {"copy_": copy} if copy > 1 else {}
        if block.began and not block.begin.since:
            updates["started"] = block.began
        begin = block.begin.model_copy(update=updates)
        self.kept[cell, replace(origin, copy=copy)] = replace(block, begin=begin)


def _describe_contradiction(
    cell: Cell, origin: CellOrigin, other: str, first: CellBlock, name: str, block: CellBlock
) -> str:
    verdicts = block.verdicts
    check = next(
        check
        for check in dict.fromkeys([*first.verdicts, *verdicts])
        if first.verdicts.get(check) != verdicts.get(check)
    )
    sides = [str(side.get(check, "missing")) for side in (first.verdicts, verdicts)]
    return (
        f"{cell} ({origin.version or 'not started'} on {origin.host}): {check} is {sides[0]} in "
        f"{other}, and {sides[1]} in {name}; both are kept"
    )


def _remove_duplicates(lines: Iterable[L]) -> list[L]:
    """Return the lines without repetitions. Equal lines (heads or pairs) occur if the files were
    merged before."""
    by_content: dict[str, L] = {}
    for line in lines:
        fields = {name: value for name, value in line.plain().items() if name != "planned"}
        by_content.setdefault(json.dumps(fields, sort_keys=True), line)
    return list(by_content.values())


def merge_speeds(files: Mapping[str, SpeedFile]) -> Merged:
    """Merge files of speeds. If files have the same result of a cell, from the same machine and
    version, it is kept once.

    Raises:
        UsageError: the files are of runs with different options.
    """
    check_same_options(
        (name, {option: getattr(content.environment, option) for option in SAME_OPTIONS})
        for name, content in files.items()
    )
    merging = _KeptEntries(files)
    plans = _list_plans(files)
    missing, shards = Plans.of(plans).describe_missing(merging.ended)
    merged = _join_files(files, merging, plans)
    models = [
        (name, each.params.spec, each.extra_info.model)
        for name, content in files.items()
        for each in content.benchmarks
    ]
    return Merged(
        kind="results of benchmarks",
        content=encode_speeds(merged),
        files=len(files),
        cells=len(merging.kept),
        machines=sorted({machine.host for machine in merging.machines.values()}),
        counts={"with a speed": len(merged.timed), "without one": len(merged.lacking)},
        duplicates=merging.duplicates,
        contradictions=[*describe_different_models(models), *merging.contradictions],
        shards=shards,
        missing=missing,
        notes=merging.notes,
    )


def join_speeds(contents: Sequence[SpeedFile]) -> SpeedFile:
    """Join files of speeds into one. They must be of one run of ``bench`` whose groups were timed
    on different machines."""
    files = {str(number): content for number, content in enumerate(contents, start=1)}
    return _join_files(files, _KeptEntries(files), _list_plans(files))


def _list_plans(files: Mapping[str, SpeedFile]) -> list[RunPlan]:
    """Return the plans (lists of all cells) of all runs. If files have the same plan and shard, it
    is returned once."""
    every = (plan for content in files.values() for plan in content.harness.plans)
    return [*{(plan.digest, plan.shard): plan for plan in every}.values()]


class _KeptEntries:
    """The timed cells that the merged file will contain, each with its origin (run, machine,
    versions). The file also stores the origin, so that it can be merged again."""

    def __init__(self, files: Mapping[str, SpeedFile]) -> None:
        self.kept: list[tuple[SpeedEntry, str, SpeedOrigin]] = []
        self.duplicates: Counter[str] = Counter()
        self.contradictions: list[str] = []
        self.notes: list[str] = []
        self.machines: dict[str, MachineOf] = {}
        self._files: list[str] = []  # the file of each kept cell
        self._numbers_by_origin: dict[tuple[str, str, str], list[int]] = {}
        for name, content in files.items():
            text = json.dumps(content.plain(), sort_keys=True)
            own = hashlib.sha256(text.encode()).hexdigest()[:16]
            entries = [_undo_merge(content, own, entry) for entry in content.entries]
            machines = [origin.machine for _, origin in entries]
            for machine in machines or [_machine_of(content)]:
                self.machines.setdefault(machine.id, machine)
            for entry, origin in entries:
                self._add(name, entry, origin)
        self._rename_groups()

    @property
    def ended(self) -> set[str]:
        """The names of the finished cells, written as in the plans (lists of all cells)."""
        return {_name_in_plan(entry.params, origin.backend) for entry, _, origin in self.kept}

    def _add(self, name: str, entry: SpeedEntry, origin: SpeedOrigin) -> None:
        cell, machine = entry.cell, origin.machine
        known = self._numbers_by_origin.setdefault((cell, machine.id, origin.versions), [])
        for number in known:
            other, *_ = self.kept[number]
            if type(entry) is type(other) and entry.outcome == other.outcome:
                self.duplicates[name] += 1
                return
            sides = ["a speed" if isinstance(e, Timed) else "none" for e in (other, entry)]
            text = (
                f"{cell} (on {machine.host}): it has {sides[0]} in {self._files[number]}, and "
                f"{sides[1]} in {name}; both are kept"
            )
            (self.notes if sides[0] == sides[1] else self.contradictions).append(text)
        known.append(len(self.kept))
        self.kept.append((entry, cell, origin))
        self._files.append(name)

    def _rename_groups(self) -> None:
        """Give groups with the same name different names if they come from several runs. Add labels
        to cells that have the same name."""
        groups: dict[str, list[int]] = {}
        for number, (entry, cell, _) in enumerate(self.kept):
            groups.setdefault(cell.replace(f"[{entry.params.backend}-", "["), []).append(number)
        for numbers in groups.values():
            runs = list(dict.fromkeys(self.kept[number][2].run for number in numbers))
            for number, label in zip(numbers, self._labels(numbers), strict=True):
                entry, cell, origin = self.kept[number]
                entry = entry.rename_backend(entry.params.backend + label)
                if len(runs) > 1 and isinstance(entry, Timed):
                    group = f"{entry.group} (run {runs.index(origin.run) + 1})"
                    entry = entry.model_copy(update={"group": group})
                self.kept[number] = entry, cell, origin

    def _labels(self, numbers: Sequence[int]) -> list[str]:
        """Return a label for each of the cells with these numbers, e.g. `` on my-host``. Cells with
        the same name get different labels."""
        kept = [self.kept[number][1:] for number in numbers]
        machines = {origin.machine.id for _, origin in kept}
        hosts = {origin.machine.host for _, origin in kept}
        versions: dict[str, set[str]] = {}
        for cell, origin in kept:
            versions.setdefault(cell, set()).add(origin.versions)
        seen: Counter[tuple[str, str]] = Counter()
        labels = []
        for cell, origin in kept:
            label = origin_label(
                version=origin.versions if len(versions[cell]) > 1 else None,
                host=origin.machine.host if len(machines) > 1 else None,
                machine=origin.machine.id if len(hosts) < len(machines) else None,
            )
            seen[cell, label] += 1
            labels.append(label + origin_label(copy=seen[cell, label]))
        return labels


def _undo_merge(content: SpeedFile, run: str, entry: SpeedEntry) -> tuple[SpeedEntry, SpeedOrigin]:
    """Return a cell with the names that it had before any merge, and its origin (run, machine,
    versions). ``run`` is the identifier of the run if the file ``content`` was not merged."""
    group = {"group": entry.group} if isinstance(entry, Timed) else {}
    origin = entry.origin
    if origin is None:
        said = content.environment.workers.get(entry.params.backend)
        origin = SpeedOrigin(
            backend=entry.params.backend,
            machine=_machine_of(content),
            versions=said.versions_text if said else "",
            run=run,
            **group,
        )
        return entry.model_copy(update={"origin": origin}), origin
    entry = entry.rename_backend(origin.backend)
    if origin.group and isinstance(entry, Timed):
        entry = entry.model_copy(update={"group": origin.group})
    return entry, origin


def _join_files(
    files: Mapping[str, SpeedFile], merging: _KeptEntries, plans: Sequence[RunPlan]
) -> SpeedFile:
    first, *_ = files.values()
    workers: dict[str, WorkerDescription] = {}
    for content in files.values():
        workers = {**content.environment.workers, **workers}
    updates: dict[str, object] = {"workers": workers}
    if len(merging.machines) > 1:
        updates["machines"] = list(merging.machines.values())
    info = {"harness": first.environment.model_copy(update=updates)}
    further = [content.harness for content in files.values()]
    rest: dict[str, object] = {}  # optional fields, set only if they have a value
    commands = dict.fromkeys(tuple(words) for each in further for words in each.commands)
    if commands:
        rest["commands"] = [list(words) for words in commands]
    if cut := [each.incomplete for each in further if each.incomplete]:
        done, planned = sum(each.done for each in cut), sum(each.planned for each in cut)
        rest["incomplete"] = Incomplete(done=done, planned=planned)
    field = Further(
        without_speed=[entry for entry, *_ in merging.kept if isinstance(entry, NoSpeed)],
        slopes=[slope for each in further for slope in each.slopes],
        tunings=[gain for each in further for gain in each.tunings],
        plans=list(plans),
    )
    return first.model_copy(
        update={
            "machine_info": first.machine_info.model_copy(update=info),
            "benchmarks": [entry for entry, *_ in merging.kept if isinstance(entry, Timed)],
            "harness": field.model_copy(update=rest),
        }
    )


def _name_in_plan(params: Parameters, backend: str) -> str:
    """Return the name that a timed cell has in the list of planned cells (see
    :class:`harness.timing.request.BenchPlan`). ``backend`` is the backend's name before any merge.
    """
    further = (params.model_extra or {}).items()
    sizes = {name: size for name, size in further if name not in OF_EVERY_CELL}
    parts = params.mode, params.spec, params.batch, params.time
    return join_name([join_name(group_name(parts, sizes)), backend])


def _machine_of(content: SpeedFile) -> MachineOf:
    machine = content.environment.machine
    host = machine.host or "an unknown machine"
    return MachineOf(id=machine.id or host, host=host, cpu=machine.cpu or "")
