"""Comparison of two runs: two record files, or two backends in one file."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.checking import changes as checks
from harness.checking.changes import (
    Cells,
    compare_conditions,
    describe_unfinished,
    find_changes,
    moved_digits,
)
from harness.command.outcome import CommandResult
from harness.comparison.options import CompareOptions
from harness.errors import UsageError, did_you_mean
from harness.files import kinds
from harness.files.user_file import FileFault, displayed, read_head
from harness.output.printing import line
from harness.results.cell import Cell
from harness.results.file import read_records
from harness.results.records import Records
from harness.results.speeds import SpeedFile
from harness.runs.changes import NONE, ConditionChange, RunChanges, describe_unreached
from harness.runtime.labels import backend_of
from harness.timing import compare as speeds
from harness.timing import json_file

NAMES = {True: "a record file of 'harness check'", False: "results of 'harness bench'"}


def compare(old: Path, new: Path, threshold: float = speeds.THRESHOLD) -> RunChanges:
    """Compare two record files and return the changes. Two speeds that differ by less than
    ``threshold`` (a share, e.g. 0.1) count as equal.

    Raises:
        UsageError: a file is not a record file, or the files are of different kinds.
        HarnessError: a file cannot be read, or is damaged.
    """
    first, second = load(old), load(new)
    if isinstance(first, Records) and isinstance(second, Records):
        for path, records in ((old, first), (new, second)):
            if not records.cells:
                raise UsageError(f"{displayed(path)} contains no finished cell")
        return checks.compare(first, second)
    if isinstance(first, Records) or isinstance(second, Records):
        descriptions = (
            f"{displayed(path)} is {NAMES[isinstance(content, Records)]}"
            for path, content in ((old, first), (new, second))
        )
        raise UsageError(f"{', and '.join(descriptions)}: give two files of the same kind")
    for path, content in ((old, first), (new, second)):
        speeds.check_cells(content, displayed(path))
    return speeds.compare(first, second, threshold)


def load(path: Path) -> Records | SpeedFile:
    """Read a record file. Return its results of checks (:class:`Records`) or its speeds
    (:class:`SpeedFile`).

    Raises:
        UsageError: the file is of another kind, or cannot be opened.
        HarnessError: the file is damaged.
    """
    name = displayed(path)
    try:
        head = read_head(path, kinds.HEAD)
        if head and kinds.RECORDS.matches(path, head):
            return read_records(path)
        if not head.startswith(b"{"):
            raise UsageError(
                f"cannot compare {name}: the file is {kinds.describe(path)}; give two files of "
                "'harness check --records', or two of 'harness bench --records'"
            )
    except FileFault as fault:
        raise UsageError(f"cannot read {name}: {fault.reason}") from None
    return json_file.read(path)


def compare_backends(
    path: Path, old: str, new: str, threshold: float = speeds.THRESHOLD
) -> RunChanges:
    """Compare two backends in one file, such as two versions of a framework, and return the
    changes. Two speeds that differ by less than ``threshold`` (a share, e.g. 0.1) count as equal.

    Raises:
        UsageError: the file is not a record file, or lacks one of the backends.
        HarnessError: the file cannot be read, or is damaged.
    """
    content = load(path)
    if isinstance(content, Records):
        how = content.stopped
        changes = compare_cells(
            content.ended, old, new, displayed(path), content.begun.keys() if how else None
        )
        return replace(changes, limits=[describe_unreached("the run", how)] if how else [])
    return compare_speeds(content, old, new, threshold, displayed(path))


def compare_cells(
    cells: Cells, old: str, new: str, where: str, begun: Set[Cell] | None = None
) -> RunChanges:
    """Return the changes of verdicts and accuracy from the backend ``old`` to the backend ``new``,
    both in ``cells``. ``where`` names the file in error messages.

    ``begun`` has the cells that an interrupted run had begun. A cell that the run began on only one
    of the two backends counts neither as missing nor as new.

    Raises:
        UsageError: the file lacks one of the backends.
    """
    _check_backends((cell.backend for cell in cells), old, new, where)
    before = {replace(c, backend=new): r for c, r in cells.items() if c.backend == old}
    after = {c: r for c, r in cells.items() if c.backend == new}
    if begun is not None:
        before = {cell: result for cell, result in before.items() if cell in begun}
        after = {c: r for c, r in after.items() if replace(c, backend=old) in begun}
    renamed = {c: replace(r, cell=replace(r.cell, backend=new)) for c, r in before.items()}
    # Leave out the interpreter, which always differs, and for different backends their code as
    # well.
    own = {"interpreter"}
    around = compare_conditions(None, renamed, None, after)
    if backend_of(old) != backend_of(new):
        own |= {"backend", "code"}
        around = [d for d in around if d.what.startswith("--env ") or _is_in_both(d)]
    around = [d for d in around if d.what not in own]
    changes = describe_unfinished(find_changes(renamed, after), begun or frozenset())
    moved = moved_digits(renamed, after)
    return RunChanges(around, changes, f"from {old} to {new}", moved=moved)


def compare_speeds(
    content: SpeedFile, old: str, new: str, threshold: float, where: str
) -> RunChanges:
    """Return the changes of speed from the backend ``old`` to the backend ``new`` that exceed both
    ``threshold`` (a share, e.g. 0.1) and the noise. ``where`` names the file in error messages.

    Raises:
        UsageError: the file lacks one of the backends.
    """
    _check_backends((entry.params.backend for entry in content.entries), old, new, where)
    one, other = (_select_backend(content, name, new) for name in (old, new))
    found = speeds.compare(one, other, threshold, baseline=old)
    around = found.environment
    if backend_of(old) != backend_of(new):
        around = [d for d in around if _is_in_both(d)]
    return replace(found, environment=around, what=f"from {old} to {new}, {found.what}")


def _is_in_both(each: ConditionChange) -> bool:
    """Return whether a condition (e.g. the version of a package) is known for both backends. A
    condition of one backend only, e.g. of its own framework, is not reported as a change."""
    return NONE not in (each.old, each.new)


def _check_backends(columns: Iterable[str], old: str, new: str, where: str) -> None:
    known = sorted(set(columns))
    for name in (old, new):
        if name not in known:
            raise UsageError(
                f"{where} has no backend {name!r}{did_you_mean(name, known)} "
                f"(it has: {', '.join(known)})"
            )
    if old == new:
        raise UsageError(f"cannot compare {old} with itself: give two different backends")


def _select_backend(content: SpeedFile, name: str, new_name: str) -> SpeedFile:
    """Return a copy of ``content`` with only the cells of the backend ``name``, renamed to
    ``new_name``."""
    selected = content.select(lambda entry: entry.params.backend == name)
    workers = content.environment.workers
    own_workers = {"workers": {new_name: workers[name]} if name in workers else {}}
    info = {"harness": content.environment.model_copy(update=own_workers)}
    without_speed = [entry.rename_backend(new_name) for entry in selected.harness.without_speed]
    return selected.model_copy(
        update={
            "benchmarks": [entry.rename_backend(new_name) for entry in selected.benchmarks],
            "harness": selected.harness.model_copy(update={"without_speed": without_speed}),
            "machine_info": content.machine_info.model_copy(update=info),
        }
    )


def run_compare(options: CompareOptions) -> CommandResult:
    """Run the command ``harness compare``, on two files or on two backends of one file.

    Raises:
        UsageError: there is one file without ``--between``, or there are two files with
            ``--between``.
    """
    new, columns = options.new, options.between
    if (new is None) == (columns is None):
        raise UsageError(
            "give two files, or one file and '--between OLD NEW' with two of its backends"
            if new is None
            else "--between compares two backends of one file, but two files are given"
        )
    if new is not None:
        changes = compare(options.old, new, options.threshold)
    else:
        assert columns is not None
        changes = compare_backends(options.old, *columns, options.threshold)

    def draw(out: Any) -> None:
        for text in changes.lines():
            line(out, text)

    data = {"exit_code": changes.exit_code, **changes.record()}
    text = changes.markdown() if options.print_markdown else draw
    return CommandResult(data, text, changes.exit_code, wrap=False)
