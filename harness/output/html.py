"""Conversion of untrusted text to HTML without markup."""

from __future__ import annotations

from html import escape

from harness.output.printing import visible


def escaped(text: str) -> str:
    """Return a text as HTML, for the content of an element or a quoted attribute."""
    return escape(visible(text))
