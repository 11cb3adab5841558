"""Options of ``report``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import KEEP, PRINT, option


@dataclass(init=False, repr=False, eq=False)
class ReportOptions:
    """Make a page of FILEs: records of a check, results of bench, weights that were trained.

    Exit code 0: the file is written; 2: wrong usage or a wrong file.
    """

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
