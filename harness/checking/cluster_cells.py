"""Running cells on the nodes of a cluster. Each node has one process per backend, which stays alive
between cells.

The parent process has the plan, writes the record file and shows the progress. A node returns the
result of a cell with the arrays that the parent needs to compare backends with each other.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from harness.checking.cell_places import RunOne, ThisMachine
from harness.checking.runner import CellRunner
from harness.checking.task import Task, Workers, tasks
from harness.cluster.on_ray import Actor, Cluster, ClusterError, ClusterNode, Lost, Queue, spread
from harness.oracle.threads import one_thread
from harness.results.cell import Cell, CellResult
from harness.results.environment import machine_identity
from harness.results.findings import Finding
from harness.results.records import CellBlock, CellOrigin, Records, results_newest_first
from harness.runtime.code_digest import digest

HOST = "harness.checking.cluster_cells:NodeCells"


class ClusterMachines:
    """The nodes of a cluster. They run the cells of a request with the option ``--on``, in place of
    :class:`ThisMachine`, which then runs only a user's own model."""

    def __init__(self, runner: CellRunner) -> None:
        """Connect to the cluster. The connection ends when the runner is closed.

        Raises:
            UsageError: the address is invalid (see :class:`.on_ray.Cluster`), or the user gave
                arrays.
            ClusterError: no cluster answers.
        """
        self._runner = runner
        self._tasks = {task.cell: task for task in tasks(runner)}
        assert runner.request.on is not None
        self._cluster = runner.closing.enter_context(Cluster(runner.request.on))

    def reuse_results(
        self, records: Records, plan: Sequence[Cell]
    ) -> tuple[dict[Cell, CellResult], list[str]]:
        """Return the recorded results that are still valid, and texts that say why other cells run
        again. Each machine of the cluster examines the recorded results that it computed."""
        ended = records.cells
        plan = [cell for cell in plan if cell in self._tasks]  # without the user's own model
        reused: dict[Cell, CellResult] = {}
        reasons: list[str] = []
        machines: set[str] = set()
        for node in self._cluster.nodes():
            with self._cluster.actor(node, HOST, cpus=0) as actor:
                try:
                    machine = self._machine(actor, node)
                    # The cells that this machine ran, without cells whose result from another
                    # machine is already reused.
                    by_origin = {
                        c: {o: b for o, b in ended[c].items() if o.machine == machine}
                        for c in plan
                        if c in ended and c not in reused
                    }
                    own = {cell: origins for cell, origins in by_origin.items() if origins}
                    if machine in machines or not own:
                        continue
                    machines.add(machine)
                    results, texts = actor.call(
                        "reuse_results", [(self._tasks[c], own[c]) for c in own]
                    )
                except Lost:
                    continue
            reused |= results
            reasons += texts
        elsewhere = sum(
            cell in ended and cell not in reused and not {o.machine for o in ended[cell]} & machines
            for cell in plan
        )
        if elsewhere:
            reasons.append(f"{elsewhere} cells are run again: their machine is not in the cluster")
        return reused, reasons

    def run(self, remaining: Sequence[Cell], run_one: RunOne, enough: threading.Event) -> None:
        """Run the cells in ``remaining`` on the nodes of the cluster. On each node, one process
        runs all cells of a backend. After the event ``enough`` is set, no further cell starts."""
        runner, request = self._runner, self._runner.request
        own = [cell for cell in remaining if runner.is_own_model(cell.backend)]
        if own:
            ThisMachine(runner).run(own, run_one, enough)
        queue = Queue([cell for cell in remaining if cell not in own], lambda cell: cell.backend)
        share, on_card = len(runner.backends) > 1, request.device != "cpu"

        def slots(node: ClusterNode) -> int:
            limit = node.gpus if on_card else node.cpus
            return min(limit, len(runner.backends), request.jobs or limit)

        def work(node: ClusterNode, backend: str) -> None:
            with self._cluster.actor(node, HOST, gpus=int(on_card)) as actor:
                place = _RemotePlace(actor, self._tasks, runner.cases.proofs, share=share)
                timeout = runner.workers[backend].launch.start_timeout
                runner.starting(f"{backend} on {node}", timeout)
                self._machine(actor, node)
                while (cell := queue.take(backend)) is not None:
                    try:
                        run_one(cell, place)
                    except Lost as lost:
                        if not queue.lost(cell) and not runner.stopping.is_set():
                            run_one(cell, _LostPlace(f"{lost} (last on {node})"))
                            queue.done(cell)
                        raise
                    queue.done(cell)
                    if enough.is_set():
                        queue.stop()

        try:
            spread(self._cluster, queue, slots, work)
        except BaseException:
            runner.stopping.set()
            raise

    def _machine(self, actor: Actor, node: ClusterNode) -> str:
        """Return the identity of the machine on which a remote process runs.

        Raises:
            Lost: the remote process or its node has ended.
            ClusterError: the node has another version of the harness.
        """
        machine, code = actor.call("about")
        if code != digest("harness"):
            raise ClusterError(
                f"the harness on {node} has different code than on this machine: install the same "
                "version on all nodes"
            )
        return str(machine)


class NodeCells:
    """An object in a process on a cluster node. It runs cells on worker processes of this node."""

    def __init__(self, _: object) -> None:
        self._workers = Workers()

    def about(self) -> tuple[str, str]:
        """Return two texts: the identity of this machine, and the checksum of its harness code."""
        return machine_identity(), digest("harness")

    def signature(self, task: Task) -> Mapping[str, str]:
        """Return everything that could change a cell's numbers on this node, as texts by name, e.g.
        ``{"usable cores": "8"}``."""
        return self._workers.runner(task).signature(task.cell)

    def run(self, task: Task, share: bool) -> tuple[CellResult, float | None]:
        """Run a cell. Return its result, and the error of the oracle's gradients relative to the
        complex-step method; the error is None if it was not measured.

        With ``share``, the result includes the arrays that the parent process needs to compare
        backends with each other.
        """
        runner = self._workers.runner(task)
        with one_thread():
            result = runner.run_cell(task.cell)
        if not share:
            result.outputs, result.values = {}, {}
        return result, runner.cases.proofs.get(task.cell.spec)

    def reuse_results(
        self, recorded: Sequence[tuple[Task, Mapping[CellOrigin, CellBlock]]]
    ) -> tuple[dict[Cell, CellResult], list[str]]:
        """Return those results in ``recorded`` that are still valid, and texts that say why the
        other cells run again."""
        by_runner: dict[CellRunner, dict[Cell, Mapping[CellOrigin, CellBlock]]] = {}
        for task, origins in recorded:
            by_runner.setdefault(self._workers.runner(task), {})[task.cell] = origins
        reused: dict[Cell, CellResult] = {}
        reasons: list[str] = []
        for runner, ended in by_runner.items():
            results, texts = runner.reuse_results([*ended], results_newest_first(ended))
            reused |= results
            reasons += texts
        return reused, reasons


class _RemotePlace:
    """A cluster node where a cell runs. The methods call :class:`NodeCells` on that node."""

    def __init__(
        self, actor: Actor, tasks: Mapping[Cell, Task], proofs: dict[str, float], share: bool
    ) -> None:
        self._actor, self._tasks, self._proofs, self._share = actor, tasks, proofs, share
        self._begun: tuple[Cell, Any] | None = None

    def signature(self, cell: Cell) -> Mapping[str, str]:
        """Return everything that could change the cell's numbers on the node, as texts by name. The
        cell starts to run when this method is called."""
        pending = self._actor.begin("signature", self._tasks[cell])
        self._begin(cell)
        signature: Mapping[str, str] = self._actor.result(pending)
        return signature

    def run_cell(self, cell: Cell) -> CellResult:
        """Return the cell's result; raise :class:`Lost` if the remote process has ended."""
        if self._begun is None or self._begun[0] != cell:
            self._begin(cell)
        assert self._begun is not None
        (_, pending), self._begun = self._begun, None
        result, proof = self._actor.result(pending)
        if proof is not None:
            self._proofs[cell.spec] = proof
        cell_result: CellResult = result
        return cell_result

    def _begin(self, cell: Cell) -> None:
        self._begun = cell, self._actor.begin("run", self._tasks[cell], self._share)


class _LostPlace:
    """A replacement for the node of a cell whose remote process has ended unexpectedly twice. The
    cell does not run."""

    def __init__(self, words: str) -> None:
        self._words = (
            f"the process that ran this cell ended, and then a second process too: {words}"
        )

    def signature(self, cell: Cell) -> None:
        """Return None, so that a resumed run tries the cell again."""

    def run_cell(self, cell: Cell) -> CellResult:
        """Return a result with the verdict ``crashed``."""
        finding = Finding("start", faults=[self._words], verdict="crashed")
        return CellResult(cell, [finding], could_not_run=True)
