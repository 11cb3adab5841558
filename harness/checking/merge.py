"""Records of several runs in one file: shards, machines, versions; nothing twice, nothing mixed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.checking.record_file import RecordError, Records, encoded, read_records
from harness.checking.record_read import CellBlock, CellOrigin, blocks, cell_of
from harness.files.user_file import displayed
from harness.results.cell import Cell, cell_name
from harness.results.findings import VERDICTS, Verdict, gravest
from harness.runs.merged import Merged, check_alike, models_apart
from harness.runs.shards import Plans, joined


def merge_records(paths: Sequence[Path]) -> Merged:
    """All cells of some record files, each once from every machine and version.

    Raises:
        RecordError: a file cannot be read, a line of it is none, or it does not say of what run its
            lines are.
        UsageError: the files are of runs with other options.
    """
    files = {displayed(path): read_records(path, complete=True) for path in paths}
    for name, records in files.items():
        if records.lines and records.lines[0]["kind"] != "head":
            raise RecordError(
                f"{name}:1: a record file begins with a line of kind 'head', which says what was "
                f"planned; found {records.lines[0]['kind']!r}: give the whole file"
            )
    heads = _distinct([h for records in files.values() for h in records.of_kind("head")])
    asked = [
        (name, head.get("request") or {})
        for name, records in files.items()
        for head in records.of_kind("head")
    ]
    if asked:
        check_alike(asked, json.dumps)
    merging = _KeptBlocks()
    models: list[tuple[str, str, str | None]] = []
    for name, records in files.items():
        for cell, origins in blocks(records).items():
            for origin, block in origins.items():
                merging.take(name, cell, origin, block)
                models.append((name, cell.spec, _model(block)))
    kept = merging.kept
    ended = {cell for cell, _ in kept}
    plans = Plans.of(head["plan"] for head in heads if head.get("plan"))
    missing, shards = plans.told({joined(cell_name(cell)) for cell in ended})
    # All that follows is the last run's, as a reader counts what a run that was stopped has done.
    *before, last = heads or [{}]
    lines = [*before, {**last, "planned": len(kept) + missing}] if heads else []
    for block in kept.values():
        lines += [block.begin, *block.results, block.end]
    lines += _cut_off(files, ended)
    # Behind all cells: a reader lets a pair go when one of its backends begins again.
    lines += _distinct([p for records in files.values() for p in records.of_kind("pair")])
    torn = sum(records.torn is not None for records in files.values())
    return Merged(
        kind="records of checks",
        content=b"".join(map(encoded, lines)),
        files=len(files),
        cells=len(kept),
        machines=sorted({origin.host for _, origin in kept}),
        counts=_counts(kept.values()),
        duplicates=merging.duplicates,
        contradictions=[*models_apart(models), *merging.contradictions],
        shards=shards,
        missing=missing,
        notes=[f"{torn} of the files end in an incomplete line, left out"] if torn else [],
    )


class _KeptBlocks:
    """The blocks that are kept so far, by cell and origin; those that contradict each other are
    copies of one."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Cell, CellOrigin], CellBlock] = {}
        self.duplicates: Counter[str] = Counter()
        self.contradictions: list[str] = []
        self._known: dict[tuple[Cell, CellOrigin], list[tuple[str, CellBlock]]] = {}

    def take(self, name: str, cell: Cell, origin: CellOrigin, block: CellBlock) -> None:
        """A block of the file ``name``."""
        known = self._known.setdefault((cell, replace(origin, copy=1)), [])
        model = _model(block)
        alike = [(n, other) for n, other in known if _model(other) in (model, None) or not model]
        if any(other.verdicts == block.verdicts for _, other in alike):
            self.duplicates[name] += 1
            return
        if alike:
            self.contradictions.append(_contradiction(cell, origin, *alike[0], name, block))
        known.append((name, block))
        copy = len(known)
        begin = {**block.begin, **({"copy": copy} if copy > 1 else {})}
        if block.began and not begin.get("since"):
            begin["started"] = block.began
        self.kept[cell, replace(origin, copy=copy)] = replace(block, begin=begin)


def _model(block: CellBlock) -> str | None:
    """What tells the model of a cell from others; None where its run did not say."""
    said = block.begin.get("signature") or {}
    return f"{said['spec']} {said.get('sizes', '')}" if "spec" in said else None


def _contradiction(
    cell: Cell, origin: CellOrigin, other: str, first: CellBlock, name: str, block: CellBlock
) -> str:
    verdicts = block.verdicts
    check = next(
        check
        for check in dict.fromkeys([*first.verdicts, *verdicts])
        if first.verdicts.get(check) != verdicts.get(check)
    )
    told = [side.get(check, "not there") for side in (first.verdicts, verdicts)]
    return (
        f"{cell} ({origin.version or 'not started'} on {origin.host}): {check} is {told[0]} in "
        f"{other}, and {told[1]} in {name}; both are kept"
    )


def _cut_off(files: Mapping[str, Records], ended: set[Cell]) -> list[dict[str, Any]]:
    """The beginnings of cells that ended nowhere, one each."""
    found: dict[Cell, dict[str, Any]] = {}
    for records in files.values():
        for line in records.of_kind("begin"):
            if cell_of(line) not in ended:
                found[cell_of(line)] = line
    return list(found.values())


def _distinct(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Heads, or pairs, each once: files that were merged before have those of others."""
    found: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        told = {name: value for name, value in line.items() if name != "planned"}
        found.setdefault(json.dumps(told, sort_keys=True), line)
    return list(found.values())


def _counts(kept: Iterable[CellBlock]) -> dict[str, int]:
    verdicts: list[Verdict] = [gravest([line["verdict"] for line in b.results]) for b in kept]
    counts = Counter(verdicts)
    return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}
