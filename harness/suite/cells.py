"""Cells that run when the first of their tests asks, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from harness.check.cell import Cell, CellResult
from harness.check.checks import FINDINGS
from harness.check.findings import Finding
from harness.check.run import Engine
from harness.check.step_summary import places

ENGINE: pytest.StashKey[Engine] = pytest.StashKey()

# Findings of a cell whose checks could not begin.
BEFORE = ("oracle", "start", "open")


class Cells:
    """The results of a session's cells; ``selected`` are the (cell, check) pairs to be asked for.

    A cell runs the groups of its selected checks only, so that ``-k`` saves time too.
    """

    def __init__(self, engine: Engine, selected: Iterable[tuple[Cell, str]]) -> None:
        self.engine = engine
        self._groups: dict[Cell, dict[str, None]] = {}
        for cell, check in selected:
            self._groups.setdefault(cell, {})[FINDINGS[check]] = None
        self._results: dict[Cell, CellResult] = {}
        self._counted: dict[Cell, set[str]] = {}

    def findings(self, cell: Cell, check: str) -> list[Finding]:
        """The findings of a cell for a check, and whatever kept it from having any.

        Raises:
            LookupError: the cell has a finding that no test of the suite would show.
        """
        found = self._result(cell).findings
        shown = {*FINDINGS, *FINDINGS.values(), *BEFORE}
        if hidden := [f.check for f in found if f.check not in shown]:
            raise LookupError(f"no test shows the findings {', '.join(hidden)} of {cell}")
        return [f for f in found if f.check in (check, FINDINGS[check], *BEFORE)]

    def location(self, cell: Cell) -> str:
        """Where the cell's forward pass first parts from the oracle, if it does."""
        return self._result(cell).location

    def places(self, cell: Cell) -> Iterator[str]:
        """``file:line`` of where the cell goes wrong, and of its model."""
        return places(self.location(cell), self.engine.specs, cell.spec)

    def seconds(self, cell: Cell, check: str) -> float:
        """How long a check of a cell took. What it shares with others, such as the start of the
        backend, is counted once: with the first that is asked for."""
        result = self._result(cell)
        counted = self._counted.setdefault(cell, set())
        found = 0.0
        if not counted:
            found = max(0.0, result.seconds - sum(f.seconds for f in result.findings))
        for finding in self.findings(cell, check):
            found += 0.0 if finding.check in counted else finding.seconds
            counted.add(finding.check)
        counted.add("")  # what is shared
        return found

    def _result(self, cell: Cell) -> CellResult:
        if cell not in self._results:
            self._results[cell] = self.engine.run_cell(cell, tuple(self._groups[cell]))
            if not any(c.backend == cell.backend for c in self._groups.keys() - self._results):
                self.engine.workers[cell.backend].close()  # it is not asked again
        return self._results[cell]


def identity(cell: Cell) -> str:
    """``torch-lesson6/simple_rnn-float32``, and what of the cell is not the default: reports of
    several backends can be merged."""
    usual = {"native", "cpu"}
    further = [part for part in (cell.path, cell.device) if part not in usual]
    return "-".join([cell.backend, cell.spec, cell.dtype, *further])
