"""Workflow commands of GitHub Actions: no text of a stranger becomes one.

The runner reads what a step prints. A line that begins with ``::``, after characters that it does
not count, is a command, such as ``::set-output name=x::y``; so is ``##[`` anywhere in a line. The
last character of such a mark is shown as an escape, which is also one in a string of JSON.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# Characters that the runner may skip: whatever is no visible ASCII and no letter or digit.
_SKIPPED = r"[^\r\n!-~\w]*"
_MARK = re.compile(
    rf"(?P<line>(?<![^\r\n]){_SKIPPED}:{_SKIPPED}):|(?P<old>#{_SKIPPED}#{_SKIPPED})\["
)
_LINE_BEGUN = re.compile(rf"{_SKIPPED}(:?){_SKIPPED}")
_OLD_BEGUN = re.compile(rf"#{_SKIPPED}(?:#{_SKIPPED})?\Z")


def annotating(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether GitHub Actions reads what is printed."""
    return environment.get("GITHUB_ACTIONS") == "true"


class CommandFilter:
    """Take the commands out of a text that comes in pieces."""

    def __init__(self) -> None:
        # The end of the last piece, as far as it may begin a mark.
        self.begun = ""

    def __call__(self, piece: str) -> str:
        """Return the piece without commands."""
        text = _MARK.sub(_escaped, self.begun + piece)
        found = text[len(self.begun) :]
        self.begun = _begun(re.split(r"[\r\n]", text)[-1])
        return found


def harmless(text: str) -> str:
    """Return a whole text without commands if GitHub Actions reads it; else as it is."""
    return CommandFilter()(text) if annotating() else text


def _escaped(mark: re.Match[str]) -> str:
    return f"{mark['line']}\\u003a" if mark["line"] is not None else f"{mark['old']}\\u005b"


def _begun(line: str) -> str:
    if found := _LINE_BEGUN.fullmatch(line):
        return found[1]
    found = _OLD_BEGUN.search(line)
    return "x" + "#" * found[0].count("#") if found else "x"
