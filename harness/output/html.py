"""Untrusted texts as HTML without markup."""

from __future__ import annotations

from html import escape

from harness.output.printing import visible


def escaped(text: str) -> str:
    """Return a text as HTML, for an element or a quoted attribute."""
    return escape(visible(text))
