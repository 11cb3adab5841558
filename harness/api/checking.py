"""``harness.check``, and its cells one by one: who agrees with the oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from harness.api import arguments
from harness.api.check_report import CheckReport
from harness.api.signature import takes_options
from harness.checking.options import CellOptions, CheckOptions
from harness.checking.run import Engine
from harness.checking.runner import CellRunner
from harness.checking.task import CellReport, Task, Workers, tasks
from harness.given.check_request import check_request

if TYPE_CHECKING:
    from harness.api.arguments import Models, Names
    from harness.api.keywords import CellKeywords, CheckKeywords


@takes_options(CheckOptions)
def check(
    specs: Models = (), backends: Names = (), **options: Unpack[CheckKeywords]
) -> CheckReport:
    """Check backends against the float64 oracle, each in a process of its own.

    Where several are meant one is enough: ``checks="loss"``, ``backends="torch"``.

    Returns:
        A report. ``print`` shows the table of the command line, a notebook an HTML table;
        ``exit_code`` is that of ``harness check``, and ``to_pandas()`` has a row for each finding.

    Raises:
        UsageError: an argument is none that there is.
        HarnessError: a spec, or a file, is wrong.
    """
    given = arguments.of(CheckOptions, {"specs": specs, "backends": backends, **options})
    with Engine(check_request(given)) as engine:
        return CheckReport.of(engine.run())


@takes_options(CellOptions)
def cells(specs: Models = (), backends: Names = (), **options: Unpack[CellKeywords]) -> list[Task]:
    """The cells that :func:`check` would run with these arguments, each on its own.

    A cell holds no arrays: it can be hashed, pickled, and written as JSON (``record()``, and
    ``Task.of`` for the way back), and :func:`run_cell` runs it wherever the harness, its folders
    and its interpreters are.

    Returns:
        The cells, in the order of the run.

    Raises:
        UsageError: an argument is none that there is.
        HarnessError: a spec is wrong.
    """
    given = arguments.of(CellOptions, {"specs": specs, "backends": backends, **options})
    with CellRunner(check_request(given)) as runner:
        return tasks(runner)


def run_cell(cell: Task, workers: Workers | None = None) -> CellReport:
    """Run one cell as :func:`check` does.

    Args:
        cell: One of :func:`cells`.
        workers: Processes that stay warm from cell to cell; new ones, for this cell only, if left
            out.

    Returns:
        What came of it: ``verdict``, ``findings``, and ``lines`` as a record file has them; all
        that the backend did is in there, and nothing of it raises.

    Raises:
        UsageError: the cell has options that there are not, or is nothing of :func:`cells`.
        HarnessError: its spec is wrong, or the records of the workers cannot be written.
    """
    if not isinstance(cell, Task):
        raise arguments.refused("run_cell", "a cell of harness.cells", cell)
    if workers is not None:
        return workers.run(cell)
    with Workers() as own:
        return own.run(cell)
