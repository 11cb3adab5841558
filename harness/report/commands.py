"""The command ``report``, and the options by which others end with one. What they need is imported
when they are run."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

from harness.command import shared
from harness.command.declared import KEEP, PRINT, Option, option, takes
from harness.command.interrupts import INTERRUPTED, stoppable

Command = Callable[..., Any]
# Of each form, whose option has its name: what it is.
FORMS: Mapping[str, str] = {"html": "a page", "markdown": "Markdown", "junit": "JUnit's XML"}
# Exit codes of a run that came to its end: all is well, something differs, or could not be run.
ENDED = (0, 1, 3)


@dataclass(init=False, repr=False, eq=False)
class ReportOptions:
    """Options of ``report``."""

    files: tuple[Path, ...] = option(MISSING, "Files to show.", word="files", metavar="FILE...")
    output: Path = shared.output("File to write: .html, .md, or .xml for JUnit's form.", MISSING)
    history: Path | None = option(
        None, "Folder with the files of older runs.", section=KEEP, kind="folder"
    )
    bases: tuple[Path, ...] = option(
        (), "An older file to compare with.", section=PRINT, word="--base"
    )
    relative_to: str | None = option(
        None,
        "Backend to compare the speeds of the others with.",
        section=PRINT,
        kind="backend",
        metavar="BACKEND",
    )
    folders: tuple[Path, ...] = shared.folders()
    as_json: bool = shared.as_json()


@takes(ReportOptions)
def report(files: tuple[Path, ...], **options: Any) -> None:
    """Make a page of FILEs: records of a check, results of bench, weights that were trained.

    Exit code 0: the file is written; 2: wrong usage or a wrong file.
    """
    from harness.report.console import run_report

    sys.exit(stoppable(partial(run_report, files, **options)))


def reported(
    results: str, *, junit: bool = True, worth: Callable[[Path], bool] = Path.exists
) -> Callable[[Command], Command]:
    """Give a command options for reports of the file that its option ``results`` names.

    Without that option, the file is one that is gone at the end. Where the command is interrupted
    and the file is ``worth`` it, the reports are of what had ended, and the file is left: the
    command's message names it.
    """
    return partial(_reported, results=results, junit=junit, worth=worth)


def _reported(
    command: Command, results: str, junit: bool, worth: Callable[[Path], bool]
) -> Command:
    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        wanted = {form: options.pop(_name(form), None) for form in FORMS}
        outputs = {form: Path(path) for form, path in wanted.items() if path is not None}
        if not outputs:
            return command(*arguments, **options)
        # Jinja2 and all forms are read only where one is wanted.
        from harness.report.console import check_outputs, write_of

        check_outputs(outputs, options[results])
        folder, kept = None, False
        if options[results] is None:
            folder = Path(tempfile.mkdtemp(prefix="harness-report-"))
            options[results] = folder / "results"
        try:
            code = _exit_code(command, arguments, options)
            kept = code == INTERRUPTED and worth(options[results])
            if kept or code in ENDED:
                old = options.get("baseline")
                bases = (old,) if old is not None else ()
                folders = options.get("folders") or ()
                write_of([options[results]], outputs, bases, options.get("relative_to"), folders)
        finally:
            if folder is not None and not kept:
                shutil.rmtree(folder)
        raise SystemExit(code)

    found: Command = run
    for form, what in reversed([*FORMS.items()]):
        if form != "junit" or junit:
            told = f"File to write {what} of the run to."
            found = Option(told, KEEP, f"--{form}", name=_name(form), type="Path").click()(found)
    return found


def _name(form: str) -> str:
    """The parameter of a form's option: ``--print-markdown`` is another."""
    return f"{form}_file"


def _exit_code(command: Command, arguments: Any, options: Mapping[str, object]) -> int:
    try:
        command(*arguments, **options)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        return end.code
    return 0
