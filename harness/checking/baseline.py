"""Comparison of a run of checks with an earlier record file: ``check --baseline``."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.checking.changes import ONLY_WHERE_WRONG, Cells, changes_of, moved_digits, surroundings
from harness.checking.checks import FINDINGS
from harness.checking.events import Report
from harness.checking.pairs import recorded
from harness.checking.request import choose_checks
from harness.checking.run import Engine
from harness.errors import UsageError
from harness.files.user_file import displayed
from harness.results.cell import CellResult
from harness.results.environment import identity
from harness.results.file import read_records
from harness.results.lines import Head
from harness.results.records import Records
from harness.runs.compared import RunChanges


class Baseline:
    """The earlier run of ``check --baseline``. Its file is read before the new run begins, because
    the new run may append to that file."""

    def __init__(self, path: Path, patterns: Sequence[str] = ()) -> None:
        """Read the earlier run from its record file.

        If a spec was deleted since and one of the ``patterns`` matches its name, the spec's cells
        count as lost.

        Raises:
            UsageError: the file has no finished cell, or a cell was run on several machines,
                but not on this one.
            RecordError: the file cannot be read.
        """
        self.name = displayed(path)
        self.patterns = patterns
        self.records: Records = read_records(path)
        self.cells = self.records.of_machine(identity(), f"--baseline {self.name}")
        if not self.cells:
            raise UsageError(f"--baseline {self.name} holds no cell that has ended")

    def compare(self, engine: Engine, report: Report, head: Head) -> RunChanges:
        """Return the changes since the earlier run; a cell counts as lost only if it was requested
        now."""
        new = {result.cell: engine.signed(result) for result in report.results}
        # With --fail-fast, cells that did not start do not count as lost.
        left = set(engine.cells()) - new.keys() if engine.request.fail_fast else ()
        old = {cell: found for cell, found in self._asked_for(engine).items() if cell not in left}
        around = surroundings(self.records.head, old, head, new)
        pairs = recorded(self.records), report.pairs
        moved = moved_digits(old, new, pairs)
        return RunChanges(around, changes_of(old, new), f"since {self.name}", moved=moved)

    def _asked_for(self, engine: Engine) -> Cells:
        """Return the earlier run's cells, with their checks, that the present request covers. A
        request without backends or specs covers all of them. A pattern covers every spec that it
        matches, so a deleted spec counts as lost."""
        request = engine.request
        checks = choose_checks(request.checks, request.thorough)
        others = {*engine.whole_plan()} - {*engine.cells()}  # of other shards
        return {
            cell: _only(result, checks)
            for cell, result in self.cells.items()
            if cell not in others
            and (not request.backends or cell.backend in engine.backends)
            and (
                not request.specs
                or cell.spec in engine.specs.names
                or any(fnmatch.fnmatch(cell.spec, pattern) for pattern in self.patterns)
            )
            and cell.dtype in request.dtypes
            and cell.path in request.paths
            and cell.device == request.device
        }


def since(compared: RunChanges, own: int) -> int:
    """Return the exit code of a run that was compared with an earlier one; ``own`` is the run's
    exit code without the comparison. Failures that the earlier run had too do not count. Code 3
    stays 3, because a backend that could not run cannot be compared."""
    if compared.exit_code:
        return own or 1
    return own if own == 3 else 0


def _only(result: CellResult, checks: tuple[str, ...]) -> CellResult:
    findings = [
        f
        for f in result.findings
        if FINDINGS.get(f.check, f.check) in checks or f.check in ONLY_WHERE_WRONG
    ]
    return replace(result, findings=findings)
