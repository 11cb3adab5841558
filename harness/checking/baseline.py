"""Compare a run with an earlier record file as soon as it ends: ``check --baseline``."""

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
    """An earlier run. It is read before the new one begins, which may append to the same file."""

    def __init__(self, path: Path, patterns: Sequence[str] = ()) -> None:
        """Read the earlier run.

        If one of the ``patterns`` matches the name of a deleted model, its cells count as lost.

        Raises:
            UsageError: no cell in it has ended, or a cell has on several machines, but not on this.
            RecordError: the file cannot be read.
        """
        self.name = displayed(path)
        self.patterns = patterns
        self.records: Records = read_records(path)
        self.cells = self.records.of_machine(identity(), f"--baseline {self.name}")
        if not self.cells:
            raise UsageError(f"--baseline {self.name} holds no cell that has ended")

    def compare(self, engine: Engine, report: Report, head: Head) -> RunChanges:
        """Return the changes of a run; only requested cells can be lost."""
        new = {result.cell: engine.signed(result) for result in report.results}
        # With --fail-fast, cells that did not start are not lost.
        left = set(engine.cells()) - new.keys() if engine.request.fail_fast else ()
        old = {cell: found for cell, found in self._asked_for(engine).items() if cell not in left}
        around = surroundings(self.records.head, old, head, new)
        pairs = recorded(self.records), report.pairs
        moved = moved_digits(old, new, pairs)
        return RunChanges(around, changes_of(old, new), f"since {self.name}", moved=moved)

    def _asked_for(self, engine: Engine) -> Cells:
        """Return the old cells and checks that the request covers. A request without backends or
        specs covers all, and a pattern all its matches: deleted ones are lost."""
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
    """Return the exit code of a compared run whose own code is ``own``: old failures do not count.
    Code 3 stays 3: nothing is known of a backend that could not run."""
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
