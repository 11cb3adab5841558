"""``harness.check``, and functions that run its cells one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack

from harness.api import arguments
from harness.api.arguments import takes_options
from harness.checking import report as reports
from harness.checking.console import results_data
from harness.checking.engine import Engine
from harness.checking.options import CellOptions, CheckOptions
from harness.checking.request import Request
from harness.checking.runner import CellRunner, Report
from harness.checking.task import CellReport, Task, Workers, tasks
from harness.command.declared import make_options
from harness.demo.console import demo_request
from harness.demo.options import DemoOptions
from harness.environments.columns import skipped_messages
from harness.files.forms import plain
from harness.given.make_request import make_check_request
from harness.output.notebook import Tint, TintedText, frame, html_table
from harness.output.printing import one_line, shown, silent
from harness.output.table import text_of
from harness.porting.check import trace_model
from harness.report.run_reports import RunReports
from harness.results.cell import CellResult
from harness.results.findings import PASSING
from harness.results.lines import results_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.api.arguments import Models, Names
    from harness.api.keywords import CellKeywords, CheckKeywords, DemoKeywords

TINTS: Mapping[str, Tint] = {
    "agree": "good",
    "float32-precision": "known",
    "known-difference": "known",
    "unsupported": "faint",
    "not-applicable": "faint",
}
# The maximum number of lines about failures that a notebook shows below the table.
MOST_LINES = 40


class CheckReport(Report):
    """The results of ``harness.check``, one for each cell, in the order of the cells; ``seconds``
    is the duration of the checks."""

    request: Request

    @classmethod
    def of(cls, report: Report, request: Request) -> Self:
        """Return the report of finished checks."""
        check_report = cls(**vars(report))
        check_report.request = request
        return check_report

    def json(self) -> Any:
        """Return what ``harness check --json`` prints, as lists and dictionaries."""
        return plain(results_data(self.exit_code, self.request, self))

    @property
    def agrees(self) -> bool:
        """True if every cell agrees, or has only known differences."""
        return self.exit_code == 0

    def __repr__(self) -> str:
        counts = reports.summarise(self)
        return f"<CheckReport: {counts}; exit code {self.exit_code}>"

    def __str__(self) -> str:
        """Return the table that ``harness check`` prints, and the failures."""
        return shown(
            "\n".join([text_of(*reports.make_tables(self)), *map(one_line, self._summary_lines())])
        )

    def _summary_lines(self) -> list[str]:
        lines = [
            *reports.list_known_differences(self),
            *reports.find_outliers(self),
            *reports.describe_not_applicable(self),
        ]
        lines += skipped_messages(self.lacking)
        lines += reports.first_lines(reports.describe_problems(self), MOST_LINES)
        return [*lines, reports.summarise(self)]

    def _repr_html_(self) -> str:
        table = reports.ResultTable(self.results)
        rows: list[list[str | TintedText]] = [
            [spec, *(_entry([result for result in column if result]) for column in row)]
            for spec, row in table.rows.items()
        ]
        return html_table(table.title, table.columns, rows, "\n".join(self._summary_lines()))

    def to_pandas(self) -> DataFrame:
        """Return a table with a row for each finding (the result of one check on one cell). The
        columns are fields of a record file, e.g. ``spec``, ``check`` and ``verdict``.

        Raises:
            NoPandas: pandas is not installed.
        """
        left_out = ("kind", "traceback", "layers")
        return frame(
            {name: value for name, value in line.plain().items() if name not in left_out}
            for result in self.results
            for line in results_of(result)
        )


def _entry(results: list[CellResult]) -> TintedText:
    """Return the text of one table entry: the digits of agreement in each of ``results``. Its
    colour shows the most serious verdict of these results."""
    text = " | ".join(map(reports.cell_text, results))
    failing = [r for r in results if r.verdict not in PASSING]
    if failing:
        return TintedText(text, "bad")
    tints = {TINTS.get(r.verdict, "") for r in results}
    return TintedText(text or "-", next((t for t in ("known", "faint", "good") if t in tints), ""))


@takes_options(CheckOptions)
def check(
    specs: Models = (), backends: Names = (), **options: Unpack[CheckKeywords]
) -> CheckReport:
    """Check backends against the float64 oracle, each in its own process.

    An option that takes several values also takes a single value: ``checks="loss"``,
    ``backends="torch"``.

    Returns:
        A report. ``print`` shows the table of the command line; a notebook shows an HTML table.
        ``exit_code`` is the exit code of ``harness check``, and ``to_pandas()`` has a row for each
        finding.

    Raises:
        UsageError: an argument has an unknown value.
        HarnessError: a spec or a file is wrong.
    """
    values = arguments.of(CheckOptions, {"specs": specs, "backends": backends, **options})
    with silent(), RunReports(make_options(CheckOptions, values)) as reported:
        options_ = trace_model({**values, "records": reported.results}, lambda _: None)
        request = make_check_request(options_)
        with Engine(request) as engine:
            report = CheckReport.of(engine.run(), request)
        reported.code = report.exit_code
    return report


@takes_options(DemoOptions)
def run_demo(**options: Unpack[DemoKeywords]) -> CheckReport:
    """Check a small GRU on numpy and one framework in seconds, like ``harness demo``.

    Returns:
        A report, like the report of :func:`check`.

    Raises:
        UsageError: there is no such backend.
    """
    request = demo_request(make_options(DemoOptions, arguments.of(DemoOptions, dict(options))))
    with Engine(request) as engine:
        return CheckReport.of(engine.run(), request)


@takes_options(CellOptions)
def cells(specs: Models = (), backends: Names = (), **options: Unpack[CellKeywords]) -> list[Task]:
    """Return the cells that :func:`check` would run with these arguments.

    A cell contains no arrays: it can be hashed, pickled, and written as JSON (``record()``;
    ``Task.of`` reads it). :func:`run_cell` runs it on any machine that has the harness, the same
    folders of definitions, and the same Python interpreters.

    Returns:
        The cells, in the order of the run.

    Raises:
        UsageError: an argument has an unknown value.
        HarnessError: a spec is wrong.
    """
    values = arguments.of(CellOptions, {"specs": specs, "backends": backends, **options})
    with CellRunner(make_check_request(values)) as runner:
        return tasks(runner)


def run_cell(cell: Task, workers: Workers | None = None) -> CellReport:
    """Run one cell like :func:`check`.

    Args:
        cell: A cell returned by :func:`cells`.
        workers: Processes that are reused for several cells. If left out, new processes are started
            for this cell only.

    Returns:
        The result: ``verdict``, ``findings``, and ``lines`` as in a record file. Failures of the
        backend are part of the result and raise nothing.

    Raises:
        UsageError: the cell has unknown options, or is not from :func:`cells`.
        HarnessError: its spec is wrong, or the records of the workers cannot be written.
    """
    if not isinstance(cell, Task):
        raise arguments.wrong_type("run_cell", "a cell of harness.cells", cell)
    if workers is not None:
        return workers.run(cell)
    with Workers() as own:
        return own.run(cell)
