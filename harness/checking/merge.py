"""Records of several runs in one file: shards, machines, versions; nothing twice, nothing mixed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.files.user_file import displayed
from harness.results.blocks import CellBlock, CellOrigin, begun_in, blocks
from harness.results.cell import Cell, cell_name
from harness.results.file import L, RecordError, encoded, read_records
from harness.results.findings import VERDICTS, gravest
from harness.results.lines import Head, Pair, RecordLine
from harness.runs.merged import Merged, check_alike, models_apart
from harness.runs.plans import Plans, joined


def merge_records(paths: Sequence[Path]) -> Merged:
    """All cells of some record files, each once from every machine and version.

    Raises:
        RecordError: a file cannot be read, a line of it is none, or it does not say of what run its
            lines are.
        UsageError: the files are of runs with other options.
    """
    files = {displayed(path): read_records(path) for path in paths}
    for name, records in files.items():
        if records.lines and not isinstance(records.lines[0], Head):
            raise RecordError(
                f"{name}:1: a record file begins with a line of kind 'head', which says what was "
                f"planned; found {records.lines[0].kind!r}: give the whole file"
            )
    heads = _distinct([h for records in files.values() for h in records.of_kind(Head)])
    asked = [
        (name, head.request.plain() if head.request else {})
        for name, records in files.items()
        for head in records.of_kind(Head)
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
    plans = Plans.of(head.plan for head in heads if head.plan)
    missing, shards = plans.told({joined(cell_name(cell)) for cell in ended})
    # All that follows is the last run's, as a reader counts what a run that was stopped has done.
    lines: list[RecordLine] = [*heads]
    for last in heads[-1:]:
        lines[-1] = last.model_copy(update={"planned": len(kept) + missing})
    for block in kept.values():
        lines += [block.begin, *block.results, block.end]
    # The beginnings of cells that ended nowhere, one each.
    begun = {cell: line for records in files.values() for cell, line in begun_in(records).items()}
    lines += [line for cell, line in begun.items() if cell not in ended]
    # Behind all cells: a reader lets a pair go when one of its backends begins again.
    lines += _distinct([p for records in files.values() for p in records.of_kind(Pair)])
    torn = sum(records.torn is not None for records in files.values())
    return Merged(
        kind="records of checks",
        content=b"".join(encoded(line.plain()) for line in lines),
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
        told: dict[str, object] = {"copy_": copy} if copy > 1 else {}
        if block.began and not block.begin.since:
            told["started"] = block.began
        begin = block.begin.model_copy(update=told)
        self.kept[cell, replace(origin, copy=copy)] = replace(block, begin=begin)


def _model(block: CellBlock) -> str | None:
    """What tells the model of a cell from others; None where its run did not say."""
    said = block.begin.signature or {}
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
    told = [str(side.get(check, "not there")) for side in (first.verdicts, verdicts)]
    return (
        f"{cell} ({origin.version or 'not started'} on {origin.host}): {check} is {told[0]} in "
        f"{other}, and {told[1]} in {name}; both are kept"
    )


def _distinct(lines: Iterable[L]) -> list[L]:
    """Heads, or pairs, each once: files that were merged before have those of others."""
    found: dict[str, L] = {}
    for line in lines:
        told = {name: value for name, value in line.plain().items() if name != "planned"}
        found.setdefault(json.dumps(told, sort_keys=True), line)
    return list(found.values())


def _counts(kept: Iterable[CellBlock]) -> dict[str, int]:
    verdicts = [gravest([line.verdict for line in block.results]) for block in kept]
    counts = Counter(verdicts)
    return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}
