"""``harness.bench`` and its report."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from harness.api import arguments
from harness.api.arguments import takes_options
from harness.api.picture import Picture
from harness.command.declared import make_options
from harness.errors import several
from harness.output.notebook import TintedText, frame, html_table
from harness.output.printing import one_line, shown, silent
from harness.output.table import text_of
from harness.report import svg_pictures
from harness.report.run_reports import RunReports
from harness.report.speeds import charts
from harness.results.speeds import SpeedFile
from harness.timing import json_file, table
from harness.timing.console import results_exit_code
from harness.timing.contestant import TimedResult
from harness.timing.json_file import document
from harness.timing.options import BenchOptions
from harness.timing.request import BenchRequest
from harness.timing.run import Bench

if TYPE_CHECKING:
    from pandas import DataFrame

    from harness.api.arguments import Models, Names
    from harness.api.keywords import BenchKeywords


class BenchReport:
    """The timed cells of ``harness.bench``, in the order in which they were planned."""

    def __init__(
        self,
        request: BenchRequest,
        results: Sequence[TimedResult],
        content: SpeedFile | None = None,
    ) -> None:
        self.request, self.results = request, list(results)
        # The content of the file of results, with the description of this machine as it is now.
        self.content = content or document(request, results)

    def json(self) -> Any:
        """Return the content of the file of results, in pytest-benchmark's format."""
        return self.content.plain()

    def plot(self) -> Picture:
        """Draw the speed of each cell with its quartiles.

        Raises:
            UsageError: matplotlib is not installed.
        """
        speed_charts = charts(self.content, None)
        cells = {
            (f"{chart.title}: {system}", backend): dot.figures.rate
            for chart in speed_charts
            for system, dots in chart.rows
            for backend, dot in dots.items()
        }
        speeds = {cell: (rate.median, rate.q1, rate.q3) for cell, rate in cells.items()}
        unit = " or ".join(dict.fromkeys(f"{chart.unit} per second" for chart in speed_charts))
        return Picture.of(lambda: svg_pictures.speeds(unit, speeds))

    @property
    def exit_code(self) -> int:
        """The exit code of ``harness bench``: 0 if every cell has a speed, 1 if a cell was refused,
        3 if a cell could not be run."""
        return results_exit_code(self.results)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file of results.

        Raises:
            DocumentError: the file cannot be written, or is an existing file of another kind.
        """
        json_file.write(Path(path), self.content)

    def __repr__(self) -> str:
        measured = sum(result.measured for result in self.results)
        cells = several(len(self.results), "cell")
        return f"<BenchReport: {measured} of {cells} with a speed; exit code {self.exit_code}>"

    def __str__(self) -> str:
        """Return the tables that ``harness bench`` prints, and the notes below the tables."""
        grids, notes = table.make_tables(self.results)
        parts = list(map(text_of, grids))
        below = ["\n".join(map(one_line, _numbered(notes)))] if notes else []
        return shown("\n\n".join([*parts, *below]))

    def _repr_html_(self) -> str:
        grids, notes = table.make_tables(self.results)
        last = len(grids) - 1
        return "".join(
            html_table(
                grid.title,
                grid.columns,
                [[str(row[0]), *map(_speed, map(str, row[1:]))] for row in grid.rows],
                "\n".join(_numbered(notes)) if number == last else "",
            )
            for number, grid in enumerate(grids)
        )

    def to_pandas(self) -> DataFrame:
        """Return a table with a row for each cell: its parameters and status, and its speed if it
        has one.

        Raises:
            NoPandas: pandas is not installed.
        """
        return frame(map(self._record, self.results))

    def _record(self, result: TimedResult) -> dict[str, Any]:
        record, rate = result.record, result.record.rate
        return {
            **json_file.parameters(self.request, result),
            "status": result.status,
            "ran": record.path or None,
            "per_second": rate.get("median"),
            "per_second_q1": rate.get("q1"),
            "per_second_q3": rate.get("q3"),
            "unit": rate.get("unit"),
            "step_seconds": record.step.get("median"),
            "digits": record.values.get("digits"),
            "reason": result.reason,
        }


def _numbered(notes: Sequence[str]) -> list[str]:
    return [f"[{number}] {note}" for number, note in enumerate(notes, start=1)]


def _speed(text: str) -> TintedText:
    """Return the text of a speed with a colour: "good" for the fastest (its text starts with
    ``*``), "bad" for a failure."""
    if text.startswith("*"):
        return TintedText(text, "good")
    return TintedText(text, "" if text[:1].isdigit() else "bad" if text != "-" else "faint")


@takes_options(BenchOptions)
def bench(
    specs: Models = (), backends: Names = (), **options: Unpack[BenchKeywords]
) -> BenchReport:
    """Time backends side by side; only cells whose results agree with the oracle get a speed.

    An option that takes several values also takes a single value: ``modes="train"``,
    ``batches=64``.

    Returns:
        A report. ``print`` shows the tables of the command line; a notebook shows an HTML table.
        ``save(path)`` writes the file that :func:`compare` reads.

    Raises:
        UsageError: an argument has an unknown value.
        HarnessError: a spec is wrong.
    """
    values = arguments.of(BenchOptions, {"specs": specs, "backends": backends, **options})
    request = BenchRequest.of(values)
    with silent(), RunReports(make_options(BenchOptions, values)) as reported:
        with Bench(request) as run:
            report = BenchReport(request, run.run(), run.document())
        if reported.results is not None:
            report.save(reported.results)
        reported.code = report.exit_code
    return report
