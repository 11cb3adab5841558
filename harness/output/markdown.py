"""Texts of anybody as Markdown, in which nothing of theirs is markup, a link or a mention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.output.printing import visible

# What is read in the middle of a line, and what makes a link of bare text.
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$]|(?<=:)//|(?<=www)\.)", re.I)
# What is read at the start of one.
_START = re.compile(r"^(?:(\d+)(?=[.)](?:\s|$))|(?=[-+=]))")


def escaped(text: str) -> str:
    """A text that shows just that, on one line, which it may begin."""
    return _START.sub(r"\1\\", _within(text))


def sentences(texts: Iterable[str]) -> str:
    """Return the texts that are not empty as sentences of one paragraph."""
    return " ".join(t if t.endswith((".", "!")) else f"{t}." for t in texts if t)


def code(text: str) -> str:
    """Return a text on one line as code, between more backticks than it has side by side."""
    text = visible(" ".join(text.splitlines()))
    fence = "`" * (_longest(text) + 1)
    space = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{space}{text}{space}{fence}"


def fenced(text: str, language: str) -> list[str]:
    """The lines of a block of code, which nothing in the text can end."""
    fence = "`" * max(3, _longest(text) + 1)
    return [f"{fence}{language}", visible(text.rstrip("\n")), fence]


def _longest(text: str) -> int:
    """The length of the longest run of backticks."""
    return max(map(len, re.findall(r"`+", text)), default=0)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the lines of an entry stay apart, and all columns but the first stand right."""
    heading, *texts = [
        ["<br>".join(map(_within, text.split("\n"))) for text in row] for row in (columns, *rows)
    ]
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *texts))


def _within(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", visible(" ".join(text.split()))).replace("@", "&#64;")
