"""Untrusted texts as Markdown without markup, links or mentions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.output.printing import visible

# Characters with a meaning within a line, and parts that make a link of bare text.
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$]|(?<=:)//|(?<=www)\.)", re.I)
# Characters with a meaning at the start of a line.
_START = re.compile(r"^(?:(\d+)(?=[.)](?:\s|$))|(?=[-+=]))")


def escaped(text: str) -> str:
    """Return a text as one line of Markdown; it may start the line."""
    return _START.sub(r"\1\\", _within(text))


def sentences(texts: Iterable[str]) -> str:
    """Join the texts that are not empty as sentences of one paragraph."""
    return " ".join(t if t.endswith((".", "!")) else f"{t}." for t in texts if t)


def code(text: str) -> str:
    """Return a text on one line as code, between more backticks than any run in the text."""
    text = visible(" ".join(text.splitlines()))
    fence = "`" * (_longest(text) + 1)
    space = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{space}{text}{space}{fence}"


def fenced(text: str, language: str) -> list[str]:
    """Return the lines of a code block that no text inside can end."""
    fence = "`" * max(3, _longest(text) + 1)
    return [f"{fence}{language}", visible(text.rstrip("\n")), fence]


def _longest(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with line breaks kept; all columns but the first are right-aligned."""
    heading, *texts = [
        ["<br>".join(map(_within, text.split("\n"))) for text in row] for row in (columns, *rows)
    ]
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *texts))


def _within(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", visible(" ".join(text.split()))).replace("@", "&#64;")
