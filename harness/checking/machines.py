"""Where the cells of a run are run: what a run asks of its machines, and this one's answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol

from harness.checking.provenance import Greetings
from harness.checking.request import slowest_first
from harness.checking.resume import nothing_yet, take_up
from harness.checking.runner import CellRunner
from harness.oracle.threads import one_thread
from harness.results.blocks import blocks, last_first
from harness.results.cell import Cell, CellResult
from harness.results.file import Records
from harness.worker.process import kill_all

# Seconds that a run waits for its threads when it is stopped.
STOPPING = 2.0


class CellPlace(Protocol):
    """Where a cell is run: here, or on another machine."""

    def signature(self, cell: Cell) -> Mapping[str, str] | None:
        """What decides the cell's numbers there, if that is known; asked before it is run."""

    def run_cell(self, cell: Cell) -> CellResult:
        """What came of it."""


# Runs a cell in a place, and keeps and tells what came of it. Called from several threads.
RunOne = Callable[[Cell, CellPlace], None]


class Machines(Protocol):
    """The machines that a run's cells are run on: this one, or those of a cluster."""

    def take_up(
        self, records: Records, plan: Sequence[Cell]
    ) -> tuple[dict[Cell, CellResult], list[str]]:
        """Which cells of a record need not be run again, and in words why others must be."""

    def run(self, left: Sequence[Cell], run_one: RunOne, enough: threading.Event) -> None:
        """Run the cells that are left; none is begun once ``enough`` is set."""


class ThisMachine:
    """Runs cells from this process, a thread for each backend."""

    def __init__(self, runner: CellRunner) -> None:
        self._runner = runner

    def take_up(
        self, records: Records, plan: Sequence[Cell]
    ) -> tuple[dict[Cell, CellResult], list[str]]:
        """Which cells of a record stand, as their signatures are those of this machine."""
        runner, request = self._runner, self._runner.request
        assert request.records is not None
        greetings = Greetings(request, runner.workers)
        kept, reasons = take_up(plan, last_first(blocks(records)), runner.signature, greetings)
        return kept, reasons if records.lines else [nothing_yet(request.records)]

    def run(self, left: Sequence[Cell], run_one: RunOne, enough: threading.Event) -> None:
        """Run what is left, each backend's cells one after the other; Ctrl-C ends those at work."""
        runner = self._runner

        def run_backend(backend: str) -> None:
            self._run_backend(backend, left, run_one, enough)

        pool = ThreadPoolExecutor(runner.request.jobs or len(os.sched_getaffinity(0)))
        futures = [pool.submit(run_backend, name) for name in slowest_first(runner.backends)]
        try:
            with one_thread():
                for future in futures:
                    future.result()
        except BaseException:
            # Ctrl-C too: the calls under way must end now. Those of the oracle cannot be
            # ended, and are not waited for long.
            runner.stopping.set()
            end = time.monotonic() + STOPPING
            # Again and again: a cell may be starting its worker just now.
            kill_all()
            while wait(futures, 0.05).not_done and time.monotonic() < end:
                kill_all()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _run_backend(
        self, backend: str, left: Iterable[Cell], run_one: RunOne, enough: threading.Event
    ) -> None:
        runner = self._runner
        for cell in left:
            if cell.backend == backend and not runner.stopping.is_set():
                if enough.is_set():
                    break
                run_one(cell, runner)
        runner.workers[backend].close()
