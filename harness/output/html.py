"""Conversion of untrusted text to HTML without markup."""

from __future__ import annotations

from html import escape

from harness.output.printing import visible


def escaped(text: str) -> str:
    """Escape a text, so that it can be the content of an HTML element or a quoted attribute."""
    return escape(visible(text))
