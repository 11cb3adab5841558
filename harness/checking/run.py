"""Running all cells of a request, with one worker process per backend. All backends share the test
cases. The parent process runs the oracle, compares results, and writes to the record file when a
cell ends. The parent process never imports a framework."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Protocol

from harness.checking import history
from harness.checking.blame import Witnesses
from harness.checking.history import describe_missing_records, records_of
from harness.checking.pairs import Pairs, read_pairs
from harness.checking.request import Request, sort_slowest_first
from harness.checking.runner import CellRunner, CheckEvents, Report
from harness.checking.shared_cases import SharedCases
from harness.checking.task import Task, Workers, tasks
from harness.cluster.on_ray import Actor, Cluster, ClusterError, ClusterNode, Lost, Queue, spread
from harness.files.system import usable_cores
from harness.oracle.threads import one_thread
from harness.results.cell import Cell, CellResult
from harness.results.environment import machine_identity
from harness.results.file import RecordWriter
from harness.results.findings import PASSING, Finding
from harness.results.lines import Begin, BlameLine, Done, Head, Pair, RecordLine
from harness.results.records import CellBlock, CellOrigin, Records, results_newest_first
from harness.runtime.code_digest import digest
from harness.worker.process import kill_all


class Engine(CellRunner):
    """The execution of all cells of a request. When the ``with`` block of this context manager
    ends, the worker processes end too."""

    head: Head
    """The first line of the run's record file; set when the run begins."""

    def __init__(
        self,
        request: Request,
        events: CheckEvents | None = None,
        *,
        cases: SharedCases | None = None,
    ) -> None:
        """Create the workers, and choose where cells run: on this machine or on a cluster.

        Args:
            request: The request.
            events: The receiver of progress.
            cases: The test cases of an earlier request with the same specs and sizes.

        Raises:
            ClusterError: the request is for a cluster, but no cluster answers.
        """
        super().__init__(request, events, cases=cases)
        self._machines = ClusterMachines(self) if request.on else ThisMachine(self)

    def run(self, arguments: Sequence[str] = ()) -> Report:
        """Run all cells, and return the report. ``arguments`` are the words of the command line,
        for the record file. By default, at most as many backends run at the same time as there are
        cores."""
        started = time.monotonic()
        plan = self.cells()
        self.events.planned(plan)
        self._writer = RecordWriter(self.request.records) if self.request.records else None
        self._results = self._resume(plan)
        reused = self._read_history(plan)
        self._results |= reused
        remaining = [cell for cell in plan if cell not in self._results]
        self.cases.plan(cell.spec for cell in remaining)
        self._witnesses = Witnesses()
        self._stop_early = threading.Event()
        self._pairs = Pairs(remaining)
        try:
            self.head = self.new_head(arguments, planned=len(remaining))
            self._write(self.head)
            for result in reused.values():
                begin = Begin.of(result.cell, result.signature, result.since)
                self._write(*history.cell_lines(begin, result))
            if remaining and self._history_writer is not None:
                self._history_writer.append(self.head)
            self._machines.run(remaining, self._run_planned, self._stop_early)
            seconds = time.monotonic() - started
            self._write(Done(seconds=round(seconds, 3)))
        finally:
            self.close()
            for writer in filter(None, (self._writer, self._history_writer)):
                writer.close()
        order = {cell: number for number, cell in enumerate(plan)}
        pairs = sorted(self._found_pairs, key=lambda pair: [order[cell] for cell in pair.cells])
        lines = [line for line in self._pairs.outliers.values() if line]
        results = [self._results[cell] for cell in plan if cell in self._results]
        left_out = len(plan) - len(results)
        return Report(results, lines, pairs, left_out, self.lacking, seconds)

    def _resume(self, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        """Return those results in the record file that are still valid, as a dictionary from cell
        to result; these cells do not run again. ``plan`` has all cells of the request. The result
        is empty unless the option ``--resume`` is set."""
        self._found_pairs: list[Pair] = []
        if not self.request.resume or self.request.records is None:
            return {}
        records = records_of(self.request.records, self.request)
        reused, reasons = self._machines.reuse_results(records, plan)
        self.events.rerunning(reasons)
        self._found_pairs = [
            p for p in read_pairs(records) if all(cell in reused for cell in p.cells)
        ]
        for result in reused.values():
            self.events.ended(result)
        return reused

    def _read_history(self, plan: Sequence[Cell]) -> dict[Cell, CellResult]:
        """Return results from the history folder, as a dictionary from cell to result: those of
        cells in ``plan`` that agreed under the same conditions. The result is empty if the request
        has no history folder."""
        self._history_writer: RecordWriter | None = None
        folder = self.request.history
        if folder is None:
            return {}
        reused: dict[Cell, CellResult] = {}
        if not self.request.fresh:
            open_cells = [cell for cell in plan if cell not in self._results]
            recorded, ignored = history.read_history(folder, self.request)
            reused, reasons = self.reuse_results(open_cells, recorded, history.KEPT)
            if ignored or reasons:
                self.events.rerunning([*ignored, *reasons])
            for result in reused.values():
                self.events.ended(result)
        if len(self._results) + len(reused) < len(plan):
            self._history_writer = RecordWriter(history.new_file(folder))
        return reused

    def _run_planned(self, cell: Cell, place: CellPlace) -> None:
        """Run a cell on this machine or on a cluster node (``place``), write its lines to the
        record file, and report its events."""
        writer = self._writer or self._history_writer
        begin = Begin.of(cell, place.signature(cell) if writer else None)
        # This line only shows which cells were running when a run was killed, so do not wait for
        # the disk.
        self._write(begin, durable=False)
        with self._lock:
            self.events.began(cell)
        result = place.run_cell(cell)
        self.cases.done(cell.spec)
        if self.stopping.is_set():
            return  # the run was stopped and killed this worker, so the result means nothing
        with self._lock:
            self._results[cell] = result
            judged = [
                BlameLine(**vars(earlier.cell), blame=earlier.blame)
                for earlier in self._witnesses.compare(result)
                if earlier.blame
            ]
            pairs = self._pairs.ended(result)
            self._found_pairs += pairs
        if self.request.fail_fast and result.verdict not in PASSING:
            self._stop_early.set()
        _, *lines = history.cell_lines(begin, result) if writer else [begin]
        self._write(*pairs, *judged, *lines)
        with self._lock:
            self.events.ended(result)
        if self._history_writer is not None:
            self._history_writer.append(begin, *lines)
        for finding in result.findings:
            finding.settle()

    def _write(self, *lines: RecordLine, durable: bool = True) -> None:
        if self._writer:
            self._writer.append(*lines, durable=durable)


# Places that run cells: the interface, and the implementation for this machine.

# Seconds that an interrupted run waits for its threads.
STOPPING = 2.0


class CellPlace(Protocol):
    """The machine on which a cell runs: this machine or a node of a cluster."""

    def signature(self, cell: Cell) -> Mapping[str, str] | None:
        """Return everything that could change the cell's numbers on this machine, as texts by name,
        e.g. ``{"usable cores": "8"}``; None if unknown. This method is called before
        :meth:`run_cell`."""

    def run_cell(self, cell: Cell) -> CellResult:
        """Run the cell and return its result."""


# A function that runs a cell in a place, writes its record lines and reports its events. Several
# threads call this function at the same time.
RunOne = Callable[[Cell, CellPlace], None]


class ThisMachine:
    """This machine, as opposed to a cluster. Cells run on worker processes of this machine, with
    one thread per backend in this process."""

    def __init__(self, runner: CellRunner) -> None:
        self._runner = runner

    def reuse_results(
        self, records: Records, plan: Sequence[Cell]
    ) -> tuple[dict[Cell, CellResult], list[str]]:
        """Return those recorded results of the cells in ``plan`` that are still valid, and texts
        that say why the other recorded cells run again."""
        assert self._runner.request.records is not None
        reused, reasons = self._runner.reuse_results(plan, results_newest_first(records.cells))
        return reused, reasons if records.lines else [
            describe_missing_records(self._runner.request.records)
        ]

    def run(self, remaining: Sequence[Cell], run_one: RunOne, enough: threading.Event) -> None:
        """Run the cells in ``remaining``. Cells of the same backend run one after the other.
        ``run_one`` runs a cell and writes its record. After the event ``enough`` is set, no further
        cell starts. Ctrl-C ends running cells."""
        runner = self._runner

        def run_backend(backend: str) -> None:
            for cell in remaining:
                if cell.backend == backend and not runner.stopping.is_set():
                    if enough.is_set():
                        break
                    run_one(cell, runner)
            runner.workers[backend].close()

        pool = ThreadPoolExecutor(runner.request.jobs or usable_cores())
        futures = [pool.submit(run_backend, name) for name in sort_slowest_first(runner.backends)]
        try:
            with one_thread():
                for future in futures:
                    future.result()
        except BaseException:
            # After an error or Ctrl-C, end the running worker calls. Calls of the oracle cannot be
            # interrupted, so wait a short time for them.
            runner.stopping.set()
            end = time.monotonic() + STOPPING
            # Kill repeatedly, because a thread may be starting a worker at this moment.
            kill_all()
            while wait(futures, 0.05).not_done and time.monotonic() < end:
                kill_all()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


# On a cluster, each node has one process per backend, which stays alive between cells.
#
# The parent process has the plan, writes the record file and shows the progress. A node returns the
# result of a cell with the arrays that the parent needs to compare backends with each other.

HOST = "harness.checking.run:NodeCells"


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
