"""Cells that run when the first of their tests asks, each once."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness.check.cell import Cell, CellResult
from harness.check.checks import FINDINGS
from harness.check.findings import Finding
from harness.check.run import Engine

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

    def _result(self, cell: Cell) -> CellResult:
        if cell not in self._results:
            self._results[cell] = self.engine.run_cell(cell, tuple(self._groups[cell]))
        return self._results[cell]


def identity(cell: Cell, several: bool) -> str:
    """``lesson6/simple_rnn-float32``, and the backend before it where several are checked."""
    name = f"{cell.spec}-{cell.dtype}"
    return f"{cell.backend}-{name}" if several else name
