"""Reports that a command such as ``check`` writes in addition to its own output."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.command.interrupts import INTERRUPTED
from harness.errors import EXIT_COULD_NOT_RUN, EXIT_FAILED, EXIT_PASSED

FORMS = ("html", "markdown", "junit")
# Exit codes of a completed run.
ENDED = (EXIT_PASSED, EXIT_FAILED, EXIT_COULD_NOT_RUN)


class RunReports:
    """Context manager that writes the requested reports when a run ends. ``asked`` has the options
    of the run.

    The run must write its results to the file ``results``: the file that the options name, or else
    a temporary file. The reports show this file. If the run is interrupted, reports are written
    only if ``worth(file)`` is True. In that case a temporary file is kept. The caller sets
    ``code``, the exit code of the run.

    Raises:
        UsageError: a report cannot be written, or two options name the same file.
    """

    def __init__(self, asked: Any, worth: Callable[[Path], bool] = Path.exists) -> None:
        self.options, self.is_worth_keeping, self.code = asked, worth, EXIT_PASSED
        paths = {form: getattr(asked, form, None) for form in FORMS}
        self.outputs = {form: path for form, path in paths.items() if path is not None}
        self.results: Path | None = asked.records
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        if not self.outputs:
            return self
        # Jinja2 is slow to import, so import the reports only if they are requested.
        from harness.report.console import check_outputs

        check_outputs(self.outputs, self.results)
        if self.results is None:
            self._folder = Path(tempfile.mkdtemp(prefix="harness-report-"))
            self.results = self._folder / "results"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        kept = False
        try:
            if self.outputs and error is None and self.results is not None:
                kept = self.code == INTERRUPTED and self.is_worth_keeping(self.results)
                if kept or self.code in ENDED:
                    from harness.report.console import write_reports

                    write_reports([self.results], self.outputs, self.options)
        finally:
            if self._folder is not None and not kept:
                shutil.rmtree(self._folder)
