"""Options of ``report``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from harness.command import shared
from harness.command.declared import KEEP, PRINT, option


@dataclass(init=False, repr=False, eq=False)
class ReportOptions:
    """Write a report of record files of check, results of bench, and weights of train.

    The exit code is 0 for success, and 2 for wrong usage or a wrong file.
    """

    files: tuple[Path, ...] = option(MISSING, "Files to show.", word="files", metavar="FILE...")
    output: Path = shared.output("File to write: .html, .md, or .xml for JUnit.", MISSING)
    history: Path | None = option(
        None, "Folder with older record files.", section=KEEP, kind="folder"
    )
    bases: tuple[Path, ...] = option(
        (), "Older file to compare with.", section=PRINT, word="--base"
    )
    relative_to: str | None = option(
        None,
        "Show speeds as multiples of this backend's speed.",
        section=PRINT,
        kind="backend",
        metavar="BACKEND",
    )
    folders: tuple[Path, ...] = shared.folders()
    as_json: bool = shared.as_json()
