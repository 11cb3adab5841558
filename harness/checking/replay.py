"""Reproducers that are run again, on their own backend or on another one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.checking.reproducer import load
from harness.command.ranges import CELL_SECONDS
from harness.environments.columns import process_of
from harness.errors import UsageError
from harness.files.forms import plain
from harness.oracle.tolerance import Deviation, worst
from harness.output.printing import console, say, tell
from harness.output.progress import Progress
from harness.program.ir import Program
from harness.results.cell import Cell
from harness.worker.launch import Launch
from harness.worker.remote import Remote, WorkerFault, check_offered, nearest_device, with_trace
from harness.worker.worker import Worker

# A result that depends on what lies in memory may be right in one pass by luck.
PASSES = 3


def run_replay(folder: Path, backend: str | None, options: Mapping[str, Any]) -> int:
    """Run a reproducer; returns 0 if all passes agree now, 1 if one differs, 3 if it cannot be run.

    ``options`` say with which interpreter and variables, and on which device, if not its own, and
    whether to print JSON.

    Raises:
        UsageError: the folder holds no expected values, or the backend does not offer what it
            needs.
    """
    found = load(folder)
    if not found.expected.values:
        raise UsageError(f"{folder} holds no expected values")
    launch = Launch(*process_of(options, backend or found.cell.backend))
    name = launch.backend
    with Worker(launch) as worker, Progress(console(error=True), "replaying") as bar:
        remote = Remote(worker, CELL_SECONDS)
        try:
            bar.step(f"starting {name}")
            programs = (found.training, found.inference)
            cell = placed(worker, found.cell, options["device"], programs)
            remote.open(*programs, None, cell.path, cell.dtype, cell.device)
            bar.step(f"running {found.run.check} of {cell.spec}")
            passes = [
                found.expected.deviations(found.run.run(remote), cell.dtype) for _ in range(PASSES)
            ]
        except WorkerFault as fault:
            tell(with_trace(f"{name}: {fault}", fault.traceback), error=True)
            return 3
    wrong = [one for one in passes if not all(d.agrees for d in one)]
    deviations, code = (wrong or passes)[0], int(bool(wrong))
    if options["as_json"]:
        record = {"exit_code": code, **cell.record(), "check": found.run.check}
        record |= {"agrees": not wrong, "passes": PASSES, "wrong_passes": len(wrong)}
        record |= {"worst": worst(deviations).name}
        say(json.dumps(plain({**record, "tensors": [_record(d) for d in deviations]})))
        return code
    for d in deviations:
        if not d.agrees:
            point = f"; {d.point}" if d.point else ""
            what = f"error {d.error:.2e}, {d.ratio:.3g} times the yardstick{point}"
            tell(f"{d.name}: {d.reason or what}")
    some = f" in {len(wrong)} of {PASSES} passes" if 0 < len(wrong) < PASSES else ""
    verdict = f"differs{some}" if wrong else f"agrees in {PASSES} passes"
    place = name if cell.device == found.cell.device else f"{name} ({cell.device})"
    what = f"{cell.spec} on {place}, {cell.dtype}, check {found.run.check}"
    tell(f"{what}: {verdict}; worst is {worst(deviations).name}")
    return code


def _record(deviation: Deviation) -> dict[str, Any]:
    """A tensor as ``--json`` has it; ``error`` and ``allowed`` relative to the oracle."""
    return {
        "name": deviation.name,
        "error": deviation.error,
        "allowed": deviation.tolerance,
        "agrees": deviation.agrees,
        "reason": deviation.reason,
    }


def placed(worker: Worker, cell: Cell, device: str | None, programs: Iterable[Program]) -> Cell:
    """The cell of a reproducer on a worker's backend: on the device that is asked for; or on its
    own, in place of which another backend that has none such takes its CPU.

    Raises:
        WorkerFault: the worker does not start.
        UsageError: it does not offer what the cell needs.
    """
    backend = worker.launch.backend
    wanted = device or cell.device
    if device is None and backend != cell.backend:
        wanted = nearest_device(worker, wanted)
    check_offered(worker, wanted, cell.dtype, programs)
    return replace(cell, backend=backend, device=wanted)
