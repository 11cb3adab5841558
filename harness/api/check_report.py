"""What ``harness.check`` returns: the report of a run that shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from harness.api.table import report_text
from harness.checking import report as reports
from harness.checking.events import Report
from harness.environments.columns import left_out
from harness.output.notebook import Tint, TintedText, frame, html_table
from harness.output.printing import one_line, shown
from harness.results.cell import CellResult
from harness.results.findings import PASSING
from harness.results.lines import results_of

if TYPE_CHECKING:
    from pandas import DataFrame

TINTS: Mapping[str, Tint] = {
    "agree": "good",
    "known-difference": "known",
    "unsupported": "faint",
    "not-applicable": "faint",
}
# Lines of what went wrong that a notebook shows below the table.
MOST_LINES = 40


class CheckReport(Report):
    """All results of a run, in the order of the plan; ``seconds`` is how long it took."""

    @classmethod
    def of(cls, report: Report) -> Self:
        """The report of a run that is done."""
        return cls(**vars(report))

    @property
    def agrees(self) -> bool:
        """Whether every cell agrees, or differs as known."""
        return self.exit_code == 0

    def __repr__(self) -> str:
        counts = reports.summary(self)
        return f"<CheckReport: {counts}; exit code {self.exit_code}>"

    def __str__(self) -> str:
        """The table of ``harness check``, and what went wrong."""
        return shown("\n".join([report_text(self), *map(one_line, self._words())]))

    def _words(self) -> list[str]:
        lines = [*reports.known(self), *reports.outliers(self), *reports.no_answers(self)]
        lines += left_out(self.lacking)
        lines += reports.first_lines(reports.problems(self), MOST_LINES)
        return [*lines, reports.summary(self)]

    def _repr_html_(self) -> str:
        backends = list(dict.fromkeys(r.cell.backend for r in self.results))
        variants = list(dict.fromkeys((r.cell.dtype, r.cell.path) for r in self.results))
        cells: dict[tuple[str, str], dict[tuple[str, str], CellResult]] = {}
        for r in self.results:
            cells.setdefault((r.cell.spec, r.cell.backend), {})[r.cell.dtype, r.cell.path] = r
        rows: list[list[str | TintedText]] = []
        for spec in dict.fromkeys(r.cell.spec for r in self.results):
            found = [cells.get((spec, backend), {}) for backend in backends]
            rows.append([spec, *(_entry([f[v] for v in variants if v in f]) for f in found)])
        words = "\n".join(self._words())
        return html_table(reports.title(self), ["system", *backends], rows, words)

    def to_pandas(self) -> DataFrame:
        """A row for each finding of each cell, with the fields of a record.

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
    """A cell of the table: its digits for each dtype and path, tinted by the gravest."""
    text = " | ".join(map(reports.cell_text, results))
    failing = [r for r in results if r.verdict not in PASSING]
    if failing:
        return TintedText(text, "bad")
    tints = {TINTS.get(r.verdict, "") for r in results}
    return TintedText(text or "-", next((t for t in ("known", "faint", "good") if t in tints), ""))
