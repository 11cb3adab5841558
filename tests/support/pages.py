"""The documentation pages, parsed as Markdown: their hyperlinks, code spans and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from places import DOCS, ROOT

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
_MARKDOWN = MarkdownIt("commonmark").enable("table")


@cache
def _tokens(page: Path) -> list[Token]:
    return _MARKDOWN.parse(page.read_text(encoding="utf-8"))


def _inline(page: Path) -> Iterator[Token]:
    for token in _tokens(page):
        yield from token.children or ()


def addresses(page: Path) -> Iterator[str]:
    """Yield the targets of a page's hyperlinks and images."""
    for token in _inline(page):
        if found := token.attrs.get({"link_open": "href", "image": "src"}.get(token.type, "")):
            yield str(found)


def code_spans(page: Path) -> Iterator[str]:
    yield from (token.content for token in _inline(page) if token.type == "code_inline")


def headings(page: Path) -> Iterator[str]:
    """Yield the page's headings as plain text, without markup such as backticks."""
    tokens = _tokens(page)
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            yield "".join(part.content for part in token.children or ())


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, in GitHub's notation."""
    found: set[str] = set()
    for heading in headings(page):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one) is not None for one in found)
        found.add(f"{slug}-{count}" if count else slug)
    return found
