"""The command ``report``, and the options by which others end with one. What they need is imported
when they are run."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from harness.interrupts import stoppable
from harness.options import FILE, FOLDER, SPECS, WordList

Command = Callable[..., Any]
# Of each form: its option, and what it is.
FORMS: Mapping[str, tuple[str, str]] = {
    "html": ("--html", "a page"),
    "markdown_file": ("--markdown", "Markdown"),
    "junit": ("--junit", "JUnit's XML"),
}
# Exit codes of a run that came to its end: all is well, something differs, or could not be run.
ENDED = (0, 1, 3)


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command("report")(guard(report))


@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    help="File to write: .html, .md, or .xml for JUnit's form.",
)
@click.option("--base", "bases", multiple=True, type=FILE, help="An older file to compare with.")
@click.option("--history", type=FOLDER, help="Folder with the files of older runs.")
@click.option(
    "--relative-to",
    metavar="BACKEND",
    type=WordList("backend"),
    help="Backend to compare the speeds of the others with.",
)
@SPECS
def report(files: tuple[Path, ...], **options: Any) -> None:
    """Make a page of FILEs: records of a check, results of bench, weights that were trained.

    Exit code 0: the file is written; 2: wrong usage or a wrong file.
    """
    from harness.report.console import run_report

    sys.exit(stoppable(partial(run_report, files, options)))


def reported(results: str, *, junit: bool = True) -> Callable[[Command], Command]:
    """Give a command options for reports of the file that its option ``results`` names.

    Without that option, the file is one that is gone at the end; where the command is interrupted,
    it is left, for its message names it.
    """
    return partial(_reported, results=results, junit=junit)


def _reported(command: Command, results: str, junit: bool) -> Command:
    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        wanted = {name: options.pop(name) for name in FORMS if name in options}
        outputs = [Path(path) for path in wanted.values() if path is not None]
        if not outputs:
            return command(*arguments, **options)
        # Jinja2 and all forms are read only where one is wanted.
        from harness.report.console import check_output, write_of

        for output in outputs:
            check_output(output)
        folder = None
        if options[results] is None:
            folder = Path(tempfile.mkdtemp(prefix="harness-report-"))
            options[results] = folder / "results"
        code = _exit_code(command, arguments, options)
        if code in ENDED:
            # bench has its older file under the name "compare".
            old = options.get("baseline") or options.get("compare")
            given = {**options, "bases": (old,) if old is not None else ()}
            write_of([options[results]], outputs, given)
            if folder is not None:
                shutil.rmtree(folder)
        raise SystemExit(code)

    found: Command = run
    for name, (flag, what) in reversed([*FORMS.items()]):
        if name != "junit" or junit:
            told = f"File to write {what} of the run to."
            found = click.option(flag, name, type=FILE, help=told)(found)
    return found


def _exit_code(command: Command, arguments: Any, options: Mapping[str, Any]) -> int:
    try:
        command(*arguments, **options)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0
