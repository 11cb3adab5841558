"""Places that run cells: the interface, and the implementation for this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol

from harness.checking.history import describe_missing_records
from harness.checking.request import sort_slowest_first
from harness.checking.runner import CellRunner
from harness.files.system import usable_cores
from harness.oracle.threads import one_thread
from harness.results.cell import Cell, CellResult
from harness.results.records import Records, results_newest_first
from harness.worker.process import kill_all

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
