"""Print how plain the pages, help texts and docstrings are; CI prints the same tables.

``python docs/architecture/sentences.py`` counts two kinds of sentences for each page: sentences of
more than 30 words, and sentences that start with What, Where or Of. Code blocks, tables and
headings are ignored. For each package, it counts the docstrings with a wrong first word: a
function's docstring must start with an imperative verb (ruff's D401), and no docstring may start
with What, Those, One, Of, By, That, Which or All.

Up to 10% of a page's sentences may be long, and up to 3% may have a wrong start. No docstring may
have a wrong first word.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from markdown_it import MarkdownIt

from harness.commands import cli

ROOT = Path(__file__).parents[2]
LONG = 30
MOST_LONG, MOST_STARTS = 0.10, 0.03
START = re.compile(r"(What|Where|Of)\b")
FIRST_WORD = re.compile(r"(What|Those|One|Of|By|That|Which|All)\b")
END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[`]?[A-Z0-9`])|(?<=[:;])\s*$")
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|cf|vs|etc)\.")
_MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Count:
    """The number of a page's sentences: of all, of those with more than 30 words, and of those with
    a wrong start."""

    sentences: int
    long: int
    starts: int


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs and list items of a page, with each code span replaced by one word."""
    in_table = in_heading = False
    for token in _MARKDOWN.parse(text):
        if token.type in ("table_open", "table_close"):
            in_table = token.type == "table_open"
        elif token.type in ("heading_open", "heading_close"):
            in_heading = token.type == "heading_open"
        elif token.type == "inline" and not in_table and not in_heading:
            parts = {"softbreak": " ", "hardbreak": " ", "code_inline": "`code`"}
            yield "".join(
                child.content if child.type == "text" else parts.get(child.type, "")
                for child in token.children or ()
            )


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a page or of a help text."""
    for paragraph in paragraphs(text):
        plain = ABBREVIATION.sub(lambda match: match[0].replace(".", ""), paragraph)
        yield from (part.strip() for part in END.split(plain) if part and part.strip())


def count(text: str) -> Count:
    """Count the sentences in the text of a page."""
    every = list(sentences(text))
    long = sum(len(sentence.split()) > LONG for sentence in every)
    starts = sum(START.match(sentence.lstrip("\"'([")) is not None for sentence in every)
    return Count(len(every), long, starts)


def help_text() -> str:
    """Return the help texts of all commands and options as paragraphs, without repetition."""
    texts: dict[str, None] = {}
    for command in cli.commands.values():
        texts[command.help or ""] = None
        for param in command.params:
            if isinstance(param, click.Option):
                texts[param.help or ""] = None
    return "\n\n".join(text.replace("\b", "") for text in texts)


def pages(root: Path = ROOT) -> dict[str, Count]:
    """Count the sentences of each page, by the page's name, and of the help texts (``--help``)."""
    found = sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])
    counts = {
        str(path.relative_to(root)): count(path.read_text(encoding="utf-8")) for path in found
    }
    return {**counts, "--help": count(help_text())}


def docstrings(root: Path = ROOT) -> dict[str, int]:
    """Return the number of docstrings with a wrong first word, by package."""
    files = sorted([*root.glob("harness/**/*.py"), *root.glob("backends/**/*.py")])
    places = {(path, line) for path in files for line in forbidden(path.read_text("utf-8"))}
    places |= _not_imperative(root)
    return dict(Counter(package(path.relative_to(root)) for path, _ in places))


def package(path: Path) -> str:
    """Return the name of a file's package."""
    return path.parts[1] if path.parts[0] == "harness" and len(path.parts) > 2 else path.parts[0]


def forbidden(source: str) -> Iterator[int]:
    """Yield the line numbers of docstrings that start with a forbidden word."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and FIRST_WORD.match(ast.get_docstring(node) or ""):
            yield node.body[0].lineno


def _not_imperative(root: Path) -> set[tuple[Path, int]]:
    ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--select", "D401"]
    command = [*ruff, "--exit-zero", "--output-format", "json", "harness", "backends"]
    run = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return {(Path(one["filename"]), one["location"]["row"]) for one in json.loads(run.stdout)}


def wrong_pages(counts: Mapping[str, Count]) -> list[str]:
    """Return a message for each limit that a page exceeds."""
    messages = []
    for name, one in counts.items():
        if one.long > MOST_LONG * one.sentences:
            messages.append(
                f"{name}: {one.long} of {one.sentences} sentences have more than {LONG} words"
            )
        if one.starts > MOST_STARTS * one.sentences:
            messages.append(f"{name}: {one.starts} sentences start with What, Where or Of")
    return messages


def tables(counts: Mapping[str, Count], packages: Mapping[str, int]) -> str:
    """Return both tables as text, the worst pages first."""
    rows = [
        f"{'page':<36}{'sentences':>10}{f'over {LONG}':>9}{'share':>7}{'What...':>9}{'share':>7}"
    ]
    for name, one in sorted(counts.items(), key=lambda item: -_share(item[1].long, item[1])):
        shares = (f"{_share(part, one):.0%}" for part in (one.long, one.starts))
        long, starts = shares
        rows.append(
            f"{name:<36}{one.sentences:>10}{one.long:>9}{long:>7}{one.starts:>9}{starts:>7}"
        )
    rows.append("")
    rows.append(f"{'package':<36}{'docstrings with a wrong first word':>36}")
    rows += _package_rows(packages.items())
    return "\n".join(rows)


def _share(part: int, one: Count) -> float:
    return part / one.sentences if one.sentences else 0.0


def _package_rows(packages: Iterable[tuple[str, int]]) -> Iterator[str]:
    ordered = sorted(packages, key=lambda item: -item[1])
    for name, number in [*ordered, ("in all", sum(number for _, number in ordered))]:
        yield f"{name:<36}{number:>36}"


if __name__ == "__main__":
    sys.stdout.write(tables(pages(), docstrings()) + "\n")
