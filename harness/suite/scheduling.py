"""How pytest-xdist hands out the tests: those of a model on a backend go to one process.

A cell runs in the process that is asked for the first of its checks, and the oracle's part of it
serves all dtypes of the model. Spread over the processes, each of them would run nearly all.
Imported where pytest-xdist asks for it, and not without it.
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
    """A unit of work is a model on a backend; of other tests in the session, what ``--dist`` says.

    ``tests`` are those of the suite by the parameters of their names.
    """

    def __init__(
        self, config: pytest.Config, log: Producer, tests: Mapping[str, tuple[Cell, str]]
    ) -> None:
        super().__init__(config, log)
        self._dist = config.getoption("dist")
        self._tests = tests

    def _split_scope(self, nodeid: str) -> str:
        found = self._tests.get(parameters(nodeid))
        if found is not None:
            return f"{found[0].backend} {found[0].spec}"
        match self._dist:
            case "loadscope":
                return nodeid.rpartition("::")[0]
            case "loadfile":
                return nodeid.partition("::")[0]
            case "loadgroup" if "@" in nodeid.rpartition("]")[2]:
                return nodeid.rpartition("@")[2]
        return nodeid

    def remove_node(self, node: WorkerController) -> str | None:
        """What a process leaves that has ended: others take the rest, and the test that it died in
        is returned, to be told as failed. It is not run again, or it would be told twice."""
        workload = self.assigned_work.pop(node)
        left = [
            (unit, test) for unit in workload.values() for test, done in unit.items() if not done
        ]
        if not left:
            return None
        unit, crashed = left[0]
        unit[crashed] = True
        self.workqueue.update((s, unit) for s, unit in workload.items() if not all(unit.values()))
        for other in self.nodes:
            self._reschedule(other)
        return str(crashed)
