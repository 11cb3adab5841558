"""Reports of a command's run, beside its own output."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.command.interrupts import INTERRUPTED

FORMS = ("html", "markdown", "junit")
# Exit codes of a run that came to its end: all is well, something differs, or could not be run.
ENDED = (0, 1, 3)


class Reported:
    """Writes the reports that the options of a run ask for when the run has ended.

    ``results`` is the file of the run's results. If no option names one, the file is temporary. If
    the run is interrupted and the file is ``worth`` it, the reports show what had ended, and the
    file stays: the command's message names it. Use as a context manager, and set ``code``.

    Raises:
        UsageError: a report cannot be written, or two files are to stand in one place.
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
        # Jinja2 and all forms are read only where one is wanted.
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
