"""Cells that run when the first of their tests asks, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

import pytest

from harness.checking.checks import FINDINGS
from harness.checking.report import places
from harness.checking.run import Engine
from harness.results.cell import Cell, CellResult
from harness.results.findings import Finding

ENGINE: pytest.StashKey[Engine] = pytest.StashKey()
NAME = f"{__package__}.test_checks"
"""Where the tests are, wherever it is installed: ``pytest --pyargs`` takes it."""

# Findings of a cell whose checks could not begin.
BEFORE = ("oracle", "start", "open")
# Those that a test of the suite shows.
SHOWN = frozenset({*FINDINGS, *FINDINGS.values(), *BEFORE})


class Cells:
    """The results of a session's cells; ``selected`` are the (cell, check) pairs to be asked for,
    in their order.

    A cell runs the groups of its selected checks only, so that ``-k`` saves time too.
    """

    def __init__(self, engine: Engine, selected: Iterable[tuple[Cell, str]]) -> None:
        self.engine = engine
        self._groups: dict[Cell, dict[str, None]] = {}
        for cell, check in selected:
            self._groups.setdefault(cell, {})[FINDINGS[check]] = None
        turns = [name for name, _ in groupby(cell.backend for cell in self._groups)]
        self._in_turn = len(turns) == len({*turns})
        self._results: dict[Cell, CellResult] = {}
        self._failed: dict[Cell, str] = {}
        self._counted: dict[Cell, set[str]] = {}

    def findings(self, cell: Cell, check: str) -> list[Finding]:
        """The findings of a cell for a check, and whatever kept it from having any.

        Raises:
            LookupError: the cell has a finding that no test of the suite would show.
            BaseException: what ended the run of the cell.
            pytest.fail.Exception: that run was ended when an earlier test asked for it.
        """
        found = self._result(cell).findings
        return [f for f in found if f.check in (check, FINDINGS[check], *BEFORE)]

    def has_run(self, cell: Cell) -> bool:
        """Whether a cell came to its end, so that what is asked of it is there."""
        return cell in self._results

    def location(self, cell: Cell) -> str:
        """Where the cell's forward pass first parts from the oracle, if it does."""
        return self._result(cell).location

    def places(self, cell: Cell) -> Iterator[str]:
        """``file:line`` of where the cell goes wrong, and of its model."""
        return places(self._result(cell), self.engine.specs)

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
        if cell in self._failed:
            text = f"{cell} came to no end: {self._failed[cell]}"
            raise pytest.fail.Exception(text, pytrace=False)
        if cell not in self._results:
            try:
                self._results[cell] = self._run(cell)
            except BaseException as error:  # a limit of time of the session's is one
                self._failed[cell] = f"{type(error).__name__}: {error}"
                raise
        return self._results[cell]

    def _run(self, cell: Cell) -> CellResult:
        if self._in_turn:
            for backend, worker in self.engine.workers.items():
                if backend != cell.backend:
                    worker.close()  # its turn is over
        result = self.engine.run_cell(cell, tuple(self._groups[cell]))
        if hidden := [f.check for f in result.findings if f.check not in SHOWN]:
            raise LookupError(f"no test shows the findings {', '.join(hidden)} of {cell}")
        return result


def identity(cell: Cell) -> str:
    """``torch-lesson6/simple_rnn-float32``, and what of the cell is not the default: reports of
    several backends can be merged."""
    usual = {"native", "cpu"}
    further = [part for part in (cell.path, cell.device) if part not in usual]
    return "-".join([cell.backend, cell.spec, cell.dtype, *further])


def tests(engine: Engine) -> Mapping[str, tuple[Cell, str]]:
    """The plan of an engine, check by check, by the parameters of a test's name."""
    return {
        f"{identity(cell)}-{check}": (cell, check) for cell in engine.cells() for check in FINDINGS
    }


def parameters(nodeid: str) -> str:
    """Those of the name of one of the suite's tests, "" if it is none."""
    name, _, rest = nodeid.partition("[")
    return rest.rpartition("]")[0] if name.startswith(f"{NAME}::") else ""
