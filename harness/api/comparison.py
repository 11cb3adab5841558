"""What ``harness.compare`` returns: changes between two runs that show themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from harness.api import arguments
from harness.api.bench_report import BenchReport
from harness.bench import compare as speeds
from harness.bench.commands import share
from harness.check import changes as checks
from harness.check import surroundings
from harness.check.records import Records
from harness.compared import HEADINGS, Differing
from harness.comparison.files import load
from harness.errors import UsageError
from harness.notebook import Entry, frame, html_table

if TYPE_CHECKING:
    from pandas import DataFrame

Run = str | PathLike[str] | BenchReport


@dataclass(frozen=True, repr=False)
class Comparison:
    """What changed, gravest first; ``environment`` is what is not the same around the runs."""

    changes: Sequence[checks.Change] | Sequence[speeds.Change]
    environment: Sequence[Differing]

    @classmethod
    def of(cls, old: Run, new: Run, threshold: float | str) -> Comparison:
        """The comparison of two runs, by their files or by what :func:`harness.bench` returned.

        Raises:
            UsageError: the threshold is no share, or the two are not of one kind.
            HarnessError: a file cannot be read, or is of another kind.
        """
        least = share(str(threshold))
        before, after = _content(old, "old"), _content(new, "new")
        if isinstance(before, Records) and isinstance(after, Records):
            around = surroundings.environment_changes(before, after)
            return cls(checks.changes(before, after), around)
        if isinstance(before, Records) or isinstance(after, Records):
            raise UsageError(
                "records of checks and results of speeds are compared: give two of one kind"
            )
        around = speeds.environment_changes(before, after)
        return cls(speeds.changes(before, after, least), around)

    @property
    def exit_code(self) -> int:
        """That of ``harness compare``: 1 if something is worse."""
        return int(any(change.worse for change in self.changes))

    def _count(self) -> str:
        worse = sum(change.worse for change in self.changes)
        changes = "1 change" if len(self.changes) == 1 else f"{len(self.changes)} changes"
        return f"{changes}, {worse} for the worse" if self.changes else "nothing changed"

    def __repr__(self) -> str:
        return f"<Comparison: {self._count()}; exit code {self.exit_code}>"

    def _around(self) -> list[str]:
        return [f"not the same: {each}" for each in self.environment]

    def __str__(self) -> str:
        """What is not the same around the runs, and a line for each change."""
        told = [f"{_heading(change)}: {change}" for change in self.changes]
        return "\n".join([*self._around(), *told, self._count()])

    def _repr_html_(self) -> str:
        rows: list[list[str | Entry]] = [
            [Entry(_heading(change), "bad" if change.worse else "good"), str(change)]
            for change in self.changes
        ]
        return html_table(self._count(), ("what", "cell"), rows, "\n".join(self._around()))

    def to_pandas(self) -> DataFrame:
        """A row for each change.

        Raises:
            NoPandas: pandas is not installed.
        """
        return frame(change.record() for change in self.changes)


def _heading(change: checks.Change | speeds.Change) -> str:
    return HEADINGS[change.kind][0]


def _content(given: Run, what: str) -> Records | Mapping[str, Any]:
    if isinstance(given, BenchReport):
        return given.document
    path = arguments.path(given, what)
    if path is None:
        raise arguments.refused(what, "a file of a run, or a report of bench", given)
    return load(path)
