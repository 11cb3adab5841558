"""Texts of anybody as HTML, in which nothing of theirs is markup."""

from __future__ import annotations

from html import escape

from harness.output.printing import visible


def escaped(text: str) -> str:
    """Return a text that shows just that, in an element or an attribute in quotes."""
    return escape(visible(text))
