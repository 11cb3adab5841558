"""What ``harness.bench`` returns: results that show themselves."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.table import grid_text
from harness.errors import several
from harness.output.notebook import TintedText, frame, html_table
from harness.output.printing import one_line, shown
from harness.results.speeds import SpeedFile
from harness.timing import json_file, table
from harness.timing.console import results_exit_code
from harness.timing.contestant import TimedResult
from harness.timing.json_file import document
from harness.timing.request import BenchRequest

if TYPE_CHECKING:
    from pandas import DataFrame


class BenchReport:
    """All cells of a run that timed backends, in the order of the plan."""

    def __init__(
        self,
        request: BenchRequest,
        results: Sequence[TimedResult],
        content: SpeedFile | None = None,
    ) -> None:
        self.request, self.results = request, list(results)
        # The content of the file of results: of this machine as it is now.
        self.content = content or document(request, results)

    @property
    def document(self) -> dict[str, Any]:
        """The content of the file of results, in pytest-benchmark's format."""
        return self.content.plain()

    @property
    def exit_code(self) -> int:
        """That of ``harness bench``: 0 if every cell has a speed."""
        return results_exit_code(self.results)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file of results.

        Raises:
            DocumentError: it cannot be written, or a file of another kind is there.
        """
        json_file.write(Path(path), self.content)

    def __repr__(self) -> str:
        measured = sum(result.measured for result in self.results)
        cells = several(len(self.results), "cell")
        return f"<BenchReport: {measured} of {cells} with a speed; exit code {self.exit_code}>"

    def __str__(self) -> str:
        """The tables of ``harness bench``, and their notes."""
        grids, notes = table.grids(self.results)
        parts = list(map(grid_text, grids))
        below = ["\n".join(map(one_line, _numbered(notes)))] if notes else []
        return shown("\n\n".join([*parts, *below]))

    def _repr_html_(self) -> str:
        grids, notes = table.grids(self.results)
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
        """A row for each cell: what it is, its status, and its figures where it has a speed.

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
    """A speed's entry: the fastest bears a star, and what has no speed no figure."""
    if text.startswith("*"):
        return TintedText(text, "good")
    return TintedText(text, "" if text[:1].isdigit() else "bad" if text != "-" else "faint")
