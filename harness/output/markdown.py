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
    """Return a text as one line of Markdown; the text may start the line."""
    return _START.sub(r"\1\\", _within(text))


def sentences(texts: Iterable[str]) -> str:
    """Join the non-empty texts as sentences of one paragraph."""
    return " ".join(t if t.endswith((".", "!")) else f"{t}." for t in texts if t)


def code(text: str) -> str:
    """Return a text as inline code, enclosed by enough backticks that the text cannot end it."""
    text = visible(" ".join(text.splitlines()))
    fence = "`" * (_longest(text) + 1)
    space = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{space}{text}{space}{fence}"


def fenced(text: str, language: str) -> list[str]:
    """Return the lines of a code block; the text cannot end the block."""
    fence = "`" * max(3, _longest(text) + 1)
    return [f"{fence}{language}", visible(text.rstrip("\n")), fence]


def _longest(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that keeps line breaks and right-aligns all columns but the first."""
    heading, *texts = [
        ["<br>".join(map(_within, text.split("\n"))) for text in row] for row in (columns, *rows)
    ]
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *texts))


def _within(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", visible(" ".join(text.split()))).replace("@", "&#64;")
