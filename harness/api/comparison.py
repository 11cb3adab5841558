"""``harness.compare`` and its result."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness.api import arguments
from harness.api.timing import BenchReport
from harness.command.options import share
from harness.comparison import two_runs
from harness.comparison.two_runs import compare_backends
from harness.errors import UsageError
from harness.files.forms import plain
from harness.output.notebook import TintedText, frame, html_table
from harness.output.printing import one_line, shown
from harness.results.records import Records
from harness.results.speeds import SpeedFile
from harness.runs import changes
from harness.timing import compare as speeds

if TYPE_CHECKING:
    from pandas import DataFrame

Run = str | PathLike[str] | BenchReport


class Comparison(changes.RunChanges):
    """Changes between two runs of ``check`` or ``bench``; the most serious change comes first.

    ``environment`` lists the versions, machine properties and settings that differ.
    """

    @classmethod
    def of(cls, old: Run, new: Run | None, columns: Any, threshold: float | str) -> Self:
        """Compare two files or bench reports. If ``new`` is None, compare two backends
        (``columns``) of one file.

        Raises:
            UsageError: the threshold is not a share, one run has checks and the other speeds, a
                backend does not exist, or not exactly one of ``new`` and ``columns`` is given.
            HarnessError: a file cannot be read, or was not written by ``check`` or ``bench``.
        """
        least, before = share(str(threshold)), _check_run(old, "old")
        if columns is not None:
            return cls(
                **vars(
                    compare_backends(_check_single_file(before, new), *_check_pair(columns), least)
                )
            )
        if new is None:
            raise UsageError(
                "give two runs, or one file and two of its backends, between=(OLD, NEW)"
            )
        after = _check_run(new, "new")
        if isinstance(before, Path) and isinstance(after, Path):
            return cls(**vars(two_runs.compare(before, after, least)))
        return cls(**vars(speeds.compare(_speed_file(before), _speed_file(after), least)))

    def __repr__(self) -> str:
        return f"<Comparison: {self.sentence}; exit code {self.exit_code}>"

    def json(self) -> Any:
        """Return what ``harness compare --json`` prints, as lists and dictionaries."""
        return plain({"exit_code": self.exit_code, **self.record()})

    def __str__(self) -> str:
        """Return the text that ``harness compare`` prints."""
        return shown("\n".join(map(one_line, self.lines())))

    def _repr_html_(self) -> str:
        rows: list[list[str | TintedText]] = [
            [
                TintedText(changes.HEADINGS[change.kind][0], "bad" if change.worse else "good"),
                str(change),
            ]
            for change in self.changes
        ]
        around = "\n".join([*self.limits, *(f"not the same: {each}" for each in self.environment)])
        return html_table(self.sentence, ("what", "cell"), rows, around, words=2)

    def to_pandas(self) -> DataFrame:
        """Return a table with a row for each change between the runs.

        Raises:
            NoPandas: pandas is not installed.
        """
        return frame(change.record() for change in self.changes)


def _check_single_file(run: Path | BenchReport, new: Run | None) -> Path:
    """Return the path of the single file whose two backends are compared. Raise an error for a
    report, or if there is a second file."""
    if new is not None:
        raise UsageError("between compares two backends of one file, but two runs are given")
    if isinstance(run, BenchReport):
        raise UsageError(
            "between compares two backends of a file: save the report, and give its file"
        )
    return run


def _check_pair(columns: Any) -> tuple[str, str]:
    match columns:
        case [str(old), str(new)]:
            return old, new
    raise arguments.wrong_type("between", "two names of backends", columns)


def _check_run(run: Run, what: str) -> Path | BenchReport:
    if isinstance(run, BenchReport):
        return run
    path = arguments.path(run, what)
    if path is None:
        raise arguments.wrong_type(what, "a file of a run, or a report of bench", run)
    return path


def _speed_file(run: Path | BenchReport) -> SpeedFile:
    if isinstance(run, BenchReport):
        return run.content
    content = two_runs.load(run)
    if isinstance(content, Records):
        raise UsageError(
            "records of 'harness check' cannot be compared with results of 'harness bench'"
        )
    return content


def compare(
    old: str | PathLike[str] | BenchReport,
    new: str | PathLike[str] | BenchReport | None = None,
    *,
    between: tuple[str, str] | None = None,
    threshold: float | str = "10%",
) -> Comparison:
    """Compare two runs of checks or of speeds, or two backends of one file.

    Args:
        old: A record file of ``harness check``, a file of results of ``harness bench``, or a report
            of :func:`bench`.
        new: The same for the later run; left out with ``between``.
        between: Names of two backends in the file ``old``, such as
            ``("torch@2.14.1", "torch@2.15.0")``.
        threshold: The share by which a speed must change to be reported: ``"10%"`` or ``0.1``.

    Returns:
        The changes. ``exit_code`` is the exit code of ``harness compare``: 1 if something is worse.

    Raises:
        UsageError: the threshold is not a share, one run is of checks and the other of speeds, a
            backend does not exist, or not exactly one of ``new`` and ``between`` is given.
        HarnessError: a file cannot be read, or was not written by ``check`` or ``bench``.
    """
    return Comparison.of(old, new, between, threshold)
