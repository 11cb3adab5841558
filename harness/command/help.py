"""Help texts in sections. Lines are wrapped to the width of the terminal, but never inside a
command that users may copy."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from harness.output.folding import protect_commands, restore_spaces
from harness.output.printing import width

# At this terminal width or below, click's help would be wider than the terminal.
NARROW = 52
# Sections of the list of commands. Commands without a section come last.
CHAPTERS: Mapping[str, str] = {
    "Compare": "check bench compare upgrade merge report demo run",
    "Find out why": "explain differences fuzz localise reduce replay",
    "Train and move models": "train generate port export import",
    "Look up": "list schema env cache",
    "Extend": "new-backend",
}


def help_of(command: str) -> Mapping[str, Any]:
    """Return a dictionary with two keys about a command: ``examples`` (commands that users can
    copy) and ``usual``.

    ``usual`` is a string with the names of the options that the short help shows. The key is
    missing if the help always shows all options.
    """
    import tomllib

    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text).get(command, {}))


class Folded(click.HelpFormatter):
    """A help formatter that never breaks a line within a command, so that users can copy it."""

    def write_text(self, text: str) -> None:
        # A command may continue on the next line of the source.
        super().write_text(protect_commands(re.sub(r"(?<!\n)\n(?!\n)", " ", text)))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        super().write_dl(
            [(name, protect_commands(text)) for name, text in rows], col_max, col_spacing
        )

    def getvalue(self) -> str:
        return restore_spaces(super().getvalue())


class FoldedContext(click.Context):
    """The click context of a command whose help is formatted by :class:`Folded`."""

    formatter_class = Folded


def narrow() -> dict[str, Any]:
    """Return the keyword argument with which click wraps help texts to a narrow terminal. Return
    ``{}`` if the terminal is wider than :data:`NARROW`."""
    columns = width(sys.stdout)
    return {"terminal_width": columns} if columns is not None and columns <= NARROW else {}


def section(formatter: click.HelpFormatter, title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Write a section of a help text: a title, and rows of an option and its description. Write
    nothing if there are no rows."""
    rows = list(rows)
    if rows:
        with formatter.section(title):
            # A long option leaves little space, so its description is below it.
            formatter.write_dl(rows, col_max=min(30, max(8, formatter.width - 32)))
