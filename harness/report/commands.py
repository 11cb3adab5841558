"""The command ``report``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.interrupts import stoppable
from harness.options import SPECS

Command = Callable[..., Any]
FILE = click.Path(path_type=Path)


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
@click.option("--history", type=FILE, help="Folder with the files of older runs.")
@click.option("--relative-to", "baseline", help="Backend beside which speeds are shown.")
@SPECS
def report(files: tuple[Path, ...], **options: Any) -> None:
    """Make a page of FILEs: records of a check, results of bench, weights that were trained.

    Exit code 0: the file is written; 2: wrong usage or a wrong file.
    """
    from harness.report.console import run_report

    sys.exit(stoppable(partial(run_report, files, options)))
