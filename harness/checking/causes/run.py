"""The command ``harness localise``: check one cell and find the causes of its differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from harness.checking.causes.cause import Causes
from harness.checking.causes.find import ORACLE, Finder
from harness.checking.checks import Context
from harness.checking.options import LocaliseOptions
from harness.checking.request import Request
from harness.checking.run import Engine
from harness.command.declared import build
from harness.command.outcome import CommandResult
from harness.environments.columns import names_of, of_command
from harness.errors import CouldNotRun, UsageError
from harness.oracle.patience import OracleFault, Patience, spent, with_patience
from harness.output.printing import console
from harness.output.progress import Progress
from harness.results.cell import Cell, CellResult
from harness.results.findings import PASSING, Blame
from harness.worker.remote import Remote, WorkerFault, check_offered, nearest_device


@dataclass(frozen=True)
class Localised:
    """The result of ``harness localise``: the causes (None if all checks agree) and the checks that
    differ. ``elsewhere`` is the device of the second backend if it differs from the cell's
    device."""

    cell: Cell
    against: str
    causes: Causes | None
    blame: Blame | None = None
    differing: list[str] = field(default_factory=list)
    elsewhere: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code: 0 if the cell agrees, 1 if it differs."""
        return 0 if self.causes is None else 1

    def record(self) -> dict[str, object]:
        """Return the result as plain data."""
        causes = self.causes
        return {
            **self.cell.record(),
            "against": self.against,
            "against_device": self.elsewhere or None,
            "agrees": causes is None,
            "causes": [asdict(cause) for cause in causes.found] if causes else [],
            "proved": bool(causes and causes.proved),
            "proof": causes.proof if causes else "",
            "blame": self.blame.model_dump() if self.blame else None,
            "differing": self.differing,
        }

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        where = f" on its {self.elsewhere}" if self.elsewhere else ""
        what = f"{self.cell} against {self.against}{where}"
        if self.causes is None:
            return [f"{what}: agrees, there is nothing to look for"]
        lines = [f"{what}: differs", *(f"  {line}" for line in self.causes.lines())]
        if self.blame:
            lines.append(f"  {self.blame}")
        return lines


def localise(
    engine: Engine,
    cell: Cell,
    against: str | None,
    show: Callable[[str], None] = lambda step: None,
) -> Localised:
    """Find the causes of a cell's differences from the oracle, or from the backend ``against``.

    ``show`` is called with a text before each step.

    Raises:
        WorkerFault: a backend crashed, hung or raised an error.
        OracleFault: the oracle ran out of time or memory.
        UsageError: the backend offers no such device or dtype.
    """
    if against is not None:
        show(f"holding {cell} against {against}")
        return _between(engine, cell, against)
    show(f"checking {cell}")
    result = engine.run_cell(cell, engine.request.checks)
    _check_ran(result)
    differing = [f.check for f in result.findings if f.verdict == "differ"]
    if not differing:
        return Localised(cell, ORACLE, None)
    show(f"{', '.join(differing)}: differ; looking for the cause by substitution")
    with with_patience(Patience(engine.request.timeout)):
        causes = Finder(_context(engine, cell, own=True)).of(result.findings)
    return Localised(cell, ORACLE, causes, result.blame, differing)


def _between(engine: Engine, cell: Cell, against: str) -> Localised:
    with with_patience(Patience(engine.request.timeout)):
        device = nearest_device(engine.workers[against], cell.device)
        other = _context(engine, replace(cell, backend=against, device=device))
        causes = Finder(_context(engine, cell), other, against).between()
        elsewhere = device if device != cell.device else ""
        return Localised(cell, against, causes, elsewhere=elsewhere)


def _context(engine: Engine, cell: Cell, own: bool = False) -> Context:
    """Return a context of a backend whose worker process has started.

    Raises:
        UsageError: the backend does not offer what the cell needs.
    """
    spec = engine.specs[cell.spec]
    case = engine.case(spec, own=False)
    needed = (case.training, case.inference, case.spec.update)
    worker = engine.workers[cell.backend]
    check_offered(worker, cell.device, cell.dtype, needed, cell.path)
    remote = Remote(worker, engine.request.timeout, spent)
    at_own = engine.case(spec, own=True) if own else case
    return Context(case, at_own, remote, cell.path, cell.dtype, cell.device)


def _check_ran(result: CellResult) -> None:
    """Raise an error unless the cell's checks could compare numbers."""
    odd = next((f for f in result.findings if f.verdict not in (*PASSING, "differ")), None)
    if odd is not None and all(f.verdict != "differ" for f in result.findings):
        told = f"{result.cell.backend}: {odd.check}: {odd.verdict}: {odd.detail}"
        raise CouldNotRun(told, odd.traceback)
    if result.findings and all(f.verdict == "unsupported" for f in result.findings):
        raise UsageError(f"{result.cell.backend}: {result.findings[0].detail}")


def run_localise(asked: LocaliseOptions) -> CommandResult:
    """Run the command ``harness localise``.

    Raises:
        UsageError: the spec, a backend or an option is wrong.
        CouldNotRun: a backend, or the oracle, could not be run.
    """
    columns = tuple(filter(None, (asked.backend, asked.against)))
    found = of_command({**vars(asked), "backends": columns})
    backend, *others = names_of(columns)
    against = others[0] if others else None
    if against == backend:
        raise UsageError(f"{backend} is to be held against itself: name another backend")
    of_cell = {"specs": (asked.spec,), "backends": (backend, *others)}
    of_cell |= {"dtypes": (asked.dtype,), "paths": (asked.path,)}
    # In a request ``against`` means a user's own model; in this command it means a backend.
    request = build(Request, {**found, **of_cell, "against": None})
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
