"""A scheduler for pytest-xdist that runs all tests of one model on one backend in the same process.

The first test of a cell runs the whole cell, and the cells of all dtypes use the same results of
the oracle. With another scheduler, nearly every process would run nearly all cells.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from harness.results.cell import Cell
from harness.suite.cells import parameters


class CellScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """A scheduler that gives all tests of one model on one backend to the same process. Tests
    outside of the suite are distributed as the option ``--dist`` says."""

    def __init__(
        self, config: pytest.Config, log: Producer, tests: Mapping[str, tuple[Cell, str]]
    ) -> None:
        super().__init__(config, log)
        self._dist = config.getoption("dist")
        self._tests = tests

    def _split_scope(self, nodeid: str) -> str:
        cell_and_check = self._tests.get(parameters(nodeid))
        if cell_and_check is not None:
            return f"{cell_and_check[0].backend} {cell_and_check[0].spec}"
        match self._dist:
            case "loadscope":
                return nodeid.rpartition("::")[0]
            case "loadfile":
                return nodeid.partition("::")[0]
            case "loadgroup" if "@" in nodeid.rpartition("]")[2]:
                return nodeid.rpartition("@")[2]
        return nodeid

    def remove_node(self, node: WorkerController) -> str | None:
        """Distribute the remaining tests of the process ``node``, which has ended, over the other
        processes. Return the name of the test that it was running when it ended; pytest-xdist
        reports this test as failed."""
        workload = self.assigned_work.pop(node)
        remaining = [
            (unit, test) for unit in workload.values() for test, done in unit.items() if not done
        ]
        if not remaining:
            return None
        unit, crashed = remaining[0]
        unit[crashed] = True
        self.workqueue.update((s, unit) for s, unit in workload.items() if not all(unit.values()))
        for other in self.nodes:
            self._reschedule(other)
        return str(crashed)
