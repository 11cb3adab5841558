"""Conversion of untrusted text to Markdown without markup, links or mentions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.output.printing import visible

# Characters that have a meaning within a line, and parts that turn bare text into a link.
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$]|(?<=:)//|(?<=www)\.)", re.I)
# Characters that have a meaning at the start of a line.
_START = re.compile(r"^(?:(\d+)(?=[.)](?:\s|$))|(?=[-+=]))")


def escaped(text: str) -> str:
    """Return a text as one line of Markdown, with special characters escaped. The text may stand at
    the start of the line."""
    return _START.sub(r"\1\\", _within(text))


def sentences(texts: Iterable[str]) -> str:
    """Return the texts as sentences of one paragraph. Empty texts are left out."""
    return " ".join(t if t.endswith((".", "!")) else f"{t}." for t in texts if t)


def code(text: str) -> str:
    """Return a text as inline code, enclosed by so many backticks that the text cannot end it."""
    text = visible(" ".join(text.splitlines()))
    fence = "`" * (_longest(text) + 1)
    space = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{space}{text}{space}{fence}"


def fenced(text: str, language: str) -> list[str]:
    """Return the lines of a code block in Markdown, enclosed so that the text cannot end it."""
    fence = "`" * max(3, _longest(text) + 1)
    return [f"{fence}{language}", visible(text.rstrip("\n")), fence]


def _longest(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table. Line breaks in entries are kept, and all columns except the first
    are aligned right."""
    heading, *texts = [
        ["<br>".join(map(_within, text.split("\n"))) for text in row] for row in (columns, *rows)
    ]
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *texts))


def _within(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", visible(" ".join(text.split()))).replace("@", "&#64;")
