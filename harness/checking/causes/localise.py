"""The command ``harness localise``: check one cell and find the causes of its differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.checking.causes.cause import (
    ORACLE,
    Localised,
)
from harness.checking.causes.find import Finder
from harness.checking.checks.context import Context
from harness.checking.engine import Engine
from harness.checking.options import LocaliseOptions
from harness.checking.request import Request
from harness.command.declared import build
from harness.command.outcome import CommandResult
from harness.environments.columns import column_names, complete_options
from harness.errors import CouldNotRun, UsageError
from harness.oracle.time_limit import OracleFault, TimeLimit, spent, with_time_limit
from harness.output.printing import console
from harness.output.progress import Progress
from harness.results.cell import Cell, CellResult
from harness.results.findings import PASSING
from harness.worker.remote import (
    Remote,
    WorkerFault,
    check_offered,
    nearest_device,
)


def localise(
    engine: Engine,
    cell: Cell,
    against: str | None,
    show: Callable[[str], None] = lambda step: None,
) -> Localised:
    """Find the causes of a cell's differences from the oracle, or from the backend named
    ``against``.

    ``show`` is called with a text about each step before the step.

    Raises:
        WorkerFault: a backend crashed, hung or raised an error.
        OracleFault: the oracle ran out of time or memory.
        UsageError: the backend offers no such device or dtype.
    """
    if against is not None:
        show(f"comparing {cell} with {against}")
        with with_time_limit(TimeLimit(engine.request.timeout)):
            device = nearest_device(engine.workers[against], cell.device)
            other = _make_context(engine, replace(cell, backend=against, device=device))
            causes = Finder(_make_context(engine, cell), other, against).compare_backends()
        elsewhere = device if device != cell.device else ""
        return Localised(cell, against, causes, elsewhere=elsewhere)
    show(f"checking {cell}")
    result = engine.run_cell(cell, engine.request.checks)
    _check_ran(result)
    differing = [f.check for f in result.findings if f.verdict == "differ"]
    if not differing:
        return Localised(cell, ORACLE, None)
    show(f"{', '.join(differing)}: differ; replacing wrong values to find the cause")
    with with_time_limit(TimeLimit(engine.request.timeout)):
        causes = Finder(_make_context(engine, cell, own=True)).find_causes(result.findings)
    return Localised(cell, ORACLE, causes, result.blame, differing)


def _make_context(engine: Engine, cell: Cell, own: bool = False) -> Context:
    """Return the arguments of the checks (a :class:`.Context`) for a cell whose worker process has
    started. With ``own``, the test case has the spec's own sizes.

    Raises:
        UsageError: the backend does not offer what the cell needs, e.g. the device.
    """
    spec = engine.specs[cell.spec]
    case = engine.case(spec, own=False)
    needed = (case.training, case.inference, case.spec.update)
    worker = engine.workers[cell.backend]
    check_offered(worker, cell.device, cell.dtype, needed, cell.path)
    remote = Remote(worker, engine.request.timeout, spent)
    own_case = engine.case(spec, own=True) if own else case
    return Context(case, own_case, remote, cell.path, cell.dtype, cell.device)


def _check_ran(result: CellResult) -> None:
    """Raise an error if no check of the cell could compare numbers, e.g. because the backend
    crashed."""
    failed = next((f for f in result.findings if f.verdict not in (*PASSING, "differ")), None)
    if failed is not None and all(f.verdict != "differ" for f in result.findings):
        error_text = f"{result.cell.backend}: {failed.check}: {failed.verdict}: {failed.detail}"
        raise CouldNotRun(error_text, failed.traceback)
    if result.findings and all(f.verdict == "unsupported" for f in result.findings):
        raise UsageError(f"{result.cell.backend}: {result.findings[0].detail}")


def run_localise(options: LocaliseOptions) -> CommandResult:
    """Run the command ``harness localise``.

    Raises:
        UsageError: the spec, a backend or an option is wrong.
        CouldNotRun: a backend, or the oracle, could not be run.
    """
    columns = tuple(filter(None, (options.backend, options.against)))
    request_options = complete_options({**vars(options), "backends": columns})
    backend, *others = column_names(columns)
    against = others[0] if others else None
    if against == backend:
        raise UsageError(f"{backend} cannot be compared with itself: name a different backend")
    cell_options = {"specs": (options.spec,), "backends": (backend, *others)}
    cell_options |= {"dtypes": (options.dtype,), "paths": (options.path,)}
    # In a request ``against`` means a user's own model; in this command it means a backend.
    request = build(Request, {**request_options, **cell_options, "against": None})
    with Engine(request) as engine:
        cells = [cell for cell in engine.cells() if cell.backend == backend]
        try:
            with Progress(console(error=True), "localising") as bar:
                causes = [localise(engine, cell, against, bar.step) for cell in cells]
        except WorkerFault as fault:
            raise CouldNotRun(f"{fault.backend or backend}: {fault}", fault.traceback) from None
        except OracleFault as fault:
            raise CouldNotRun(str(fault)) from None
    text = "\n".join(line for one in causes for line in one.lines())
    code = max(one.exit_code for one in causes)
    return CommandResult([one.record() for one in causes], text, code)
