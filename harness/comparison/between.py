"""Two columns of one run held against each other, as two runs would be: an old version of a
framework and a new one."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from harness.checking.changes import Cells, changes_of, moved_digits, surroundings, told_unfinished
from harness.comparison.files import load
from harness.errors import UsageError, did_you_mean
from harness.files.user_file import displayed
from harness.results.blocks import begun_in, ended, stopped
from harness.results.cell import Cell, CellResult
from harness.results.file import Records
from harness.results.speeds import SpeedEntry, SpeedFile
from harness.runs.compared import NONE, Differing, RunChanges, unreached
from harness.runtime.labels import backend_of
from harness.timing import compare as speeds

E = TypeVar("E", bound=SpeedEntry)


def between(path: Path, old: str, new: str, threshold: float = speeds.THRESHOLD) -> RunChanges:
    """What changes from one column of a file to another; ``threshold`` is for speeds.

    Raises:
        UsageError: the file is of neither kind, or has no such column.
        HarnessError: it cannot be read, or is damaged.
    """
    content = load(path)
    if isinstance(content, Records):
        how = stopped(content)
        found = of_cells(
            ended(content), old, new, displayed(path), begun_in(content).keys() if how else None
        )
        return replace(found, limits=[unreached("the run", how)] if how else [])
    return of_speeds(content, old, new, threshold, displayed(path))


def of_cells(
    cells: Cells, old: str, new: str, where: str, begun: Set[Cell] | None = None
) -> RunChanges:
    """The changes of verdicts and accuracy from one column to another.

    ``begun`` are the cells that a run which was stopped has begun: what it has not come to in one
    column is neither lost nor new.

    Raises:
        UsageError: there is no such column.
    """
    _check((cell.backend for cell in cells), old, new, where)
    before = {replace(c, backend=new): r for c, r in cells.items() if c.backend == old}
    after = {c: r for c, r in cells.items() if c.backend == new}
    if begun is not None:
        before = {cell: result for cell, result in before.items() if cell in begun}
        after = {c: r for c, r in after.items() if replace(c, backend=old) in begun}
    renamed = {cell: _under(result, new) for cell, result in before.items()}
    # That interpreters are two is what columns are for; two backends have code of their own.
    own = {"interpreter"}
    around = surroundings(None, renamed, None, after)
    if backend_of(old) != backend_of(new):
        own |= {"backend", "code"}
        around = [d for d in around if d.what.startswith("--env ") or _of_both(d)]
    around = [d for d in around if d.what not in own]
    changes = told_unfinished(changes_of(renamed, after), begun or frozenset())
    moved = moved_digits(renamed, after)
    return RunChanges(around, changes, f"from {old} to {new}", moved=moved)


def of_speeds(content: SpeedFile, old: str, new: str, threshold: float, where: str) -> RunChanges:
    """The changes of speed beyond ``threshold`` and the noise from one column to another.

    Raises:
        UsageError: there is no such column.
    """
    _check((entry.params.backend for entry in content.entries), old, new, where)
    one, other = (_only(content, name, new) for name in (old, new))
    found = speeds.compare(one, other, threshold)
    changes = [replace(c, baseline=old) for c in speeds.changes(one, other, threshold)]
    unknown = speeds.unsure(one, other, changes)
    cut = content.harness.incomplete
    limits = [unreached("the run", str(cut))] if cut else []
    around = found.environment
    if backend_of(old) != backend_of(new):
        around = [d for d in around if _of_both(d)]
    return RunChanges(
        around,
        changes,
        f"from {old} to {new}, {found.what}",
        limits + unknown.limits,
        unsure=str(unknown),
    )


def _of_both(each: Differing) -> bool:
    """Whether both sides have an entry: what only one of two frameworks is made of is no change."""
    return NONE not in (each.old, each.new)


def _check(columns: Iterable[str], old: str, new: str, where: str) -> None:
    known = sorted(set(columns))
    for name in (old, new):
        if name not in known:
            raise UsageError(
                f"{where} has no column {name!r}{did_you_mean(name, known)} "
                f"(it has: {', '.join(known)})"
            )
    if old == new:
        raise UsageError(f"{old} is to be held against itself: name another column")


def _under(result: CellResult, name: str) -> CellResult:
    return replace(result, cell=replace(result.cell, backend=name))


def _only(content: SpeedFile, name: str, called: str) -> SpeedFile:
    """The content with the cells of one column only, under another name."""

    def renamed(entry: E) -> E:
        names = {"name": entry.name, "fullname": entry.cell}
        words = {key: text.replace(f"[{name}-", f"[{called}-") for key, text in names.items()}
        return entry.model_copy(update=words)

    mine = content.only(lambda entry: entry.params.backend == name)
    workers = content.environment.workers
    told = {"workers": {called: workers[name]} if name in workers else {}}
    info = {"harness": content.environment.model_copy(update=told)}
    lacking = [renamed(entry) for entry in mine.harness.without_speed]
    return mine.model_copy(
        update={
            "benchmarks": [renamed(entry) for entry in mine.benchmarks],
            "harness": mine.harness.model_copy(update={"without_speed": lacking}),
            "machine_info": content.machine_info.model_copy(update=info),
        }
    )
