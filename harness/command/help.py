"""The help of commands: in sections, as wide as the terminal, what is copied in one piece."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click

from harness.output.folding import restored, unbroken
from harness.output.printing import width

# Columns below which click's help would be wider than the terminal.
NARROW = 52
# The sections of a command's help, in their order, and the options in them; an option that means
# something else in one command is there by both names.
SECTIONS: Mapping[str, str] = {
    "What to run": "backend against between pairs run break to from path dtype device quick check "
    "thorough repeat mode batch time size rounds tune phase want text data encoding epochs "
    "held-out prompt length temperature top-k no-cache seed deterministic no-proof specs weights "
    "inputs map takes returns like list remove shard",
    "What to list": "backends formats models layers functions losses optimizers initializers",
    "How to run it": "on python env threads jobs timeout start-timeout search-timeout memory "
    "fail-fast",
    "What to keep": "records train:weights import:weights output html markdown junit reproducers "
    "every resume history fresh force",
    "What to print": "json print-markdown verbose baseline base relative-to threshold",
}
# The sections of the list of commands; one that is in none stands at the end.
CHAPTERS: Mapping[str, str] = {
    "Compare": "check bench compare upgrade merge report demo run",
    "Find out why": "explain differences localise reduce replay",
    "Train and move models": "train generate export import",
    "Look up": "list schema env",
}


class Folded(click.HelpFormatter):
    """Help whose commands to copy are never broken."""

    def write_text(self, text: str) -> None:
        # A command may go on in a further line of the source.
        super().write_text(unbroken(re.sub(r"(?<!\n)\n(?!\n)", " ", text)))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        super().write_dl([(name, unbroken(text)) for name, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        return restored(super().getvalue())


class FoldedContext(click.Context):
    """A command as it is run."""

    formatter_class = Folded


def narrow() -> dict[str, Any]:
    """The width of help on a terminal that is narrower than click expects any to be."""
    columns = width(sys.stdout)
    return {"terminal_width": columns} if columns is not None and columns <= NARROW else {}


def section(formatter: click.HelpFormatter, title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Write rows under a title, if there are any."""
    rows = list(rows)
    if rows:
        with formatter.section(title):
            # Where little room is beside a long option, what it does stands below it.
            formatter.write_dl(rows, col_max=min(30, max(8, formatter.width - 32)))
