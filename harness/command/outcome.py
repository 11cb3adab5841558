"""Result of a command: data for programs, text for people, and the exit code."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.errors import EXIT_PASSED
from harness.files.forms import plain
from harness.output.printing import console, drawing, say, shown, tell


@dataclass(frozen=True, repr=False)
class CommandResult:
    """The result of a command, to print as text or as JSON.

    ``data`` is the JSON data, or a function that returns the data. ``text`` is the text for people,
    or a function that prints this text on a console. ``wrap`` is True if the text is wrapped to the
    width of the terminal. ``printed`` is True if the command has already printed the text.
    """

    data: Any
    text: str | Callable[[Any], None] = ""
    exit_code: int = EXIT_PASSED
    wrap: bool = True
    printed: bool = False

    def json(self) -> Any:
        """Return the data that the command prints with ``--json``, as lists and dictionaries."""
        return plain(self.data() if callable(self.data) else self.data)

    def print(self, as_json: bool) -> None:
        """Print the data as JSON, or print the text."""
        if as_json:
            say(json.dumps(self.json(), allow_nan=False))
        elif self.printed:
            return
        elif not isinstance(self.text, str):
            self.text(console())
        elif self.text:
            (tell if self.wrap else say)(self.text)

    def __str__(self) -> str:
        """Return the text that the command prints."""
        if isinstance(self.text, str):
            return shown(self.text)
        buffer = io.StringIO()
        self.text(drawing(buffer))
        return buffer.getvalue().rstrip("\n")

    def __repr__(self) -> str:
        return f"<CommandResult: exit code {self.exit_code}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
