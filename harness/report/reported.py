"""Reports that a command writes in addition to its own output."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.command.interrupts import INTERRUPTED

FORMS = ("html", "markdown", "junit")
# Exit codes of a completed run: all is well, something differs, something could not be run.
ENDED = (0, 1, 3)


class Reported:
    """Context manager that writes the reports a run's options ask for when the run has ended.

    The reports show the file ``results``, which is temporary if no option names one. After an
    interrupt, reports are written and the file stays only if it is ``worth`` it. The caller sets
    ``code``.

    Raises:
        UsageError: a report cannot be written, or two options name the same file.
    """

    def __init__(self, asked: Any, worth: Callable[[Path], bool] = Path.exists) -> None:
        self.asked, self.worth, self.code = asked, worth, 0
        paths = {form: getattr(asked, form, None) for form in FORMS}
        self.outputs = {form: path for form, path in paths.items() if path is not None}
        self.results: Path | None = asked.records
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        if not self.outputs:
            return self
        # Import Jinja2 and the formats only if a report is wanted.
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
                kept = self.code == INTERRUPTED and self.worth(self.results)
                if kept or self.code in ENDED:
                    from harness.report.console import write_of

                    write_of([self.results], self.outputs, self.asked)
        finally:
            if self._folder is not None and not kept:
                shutil.rmtree(self._folder)
