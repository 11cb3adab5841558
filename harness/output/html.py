"""Conversion of untrusted text to HTML without markup."""

from __future__ import annotations

from html import escape

from harness.output.printing import visible


def escaped(text: str) -> str:
    """Return a text with HTML's special characters escaped, so that it can be the content of an
    element or of a quoted attribute."""
    return escape(visible(text))
