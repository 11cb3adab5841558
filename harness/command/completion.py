"""Completion in bash, zsh and fish, because click's own scripts break some options of the harness.

Bash breaks a word at ``=``, ``:`` and ``@``. Zsh replaces ``--option=value`` as a whole. Fish
splits a list at its commas. So the scripts of the harness pass the whole command line to Python.
Like click's scripts, they read lines of ``type,value``. After a value of type ``part`` (an
unfinished argument), the shell adds no space.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    split_arg_string,
)

from harness.errors import HarnessError, UsageError


class _Shell(ShellComplete):
    def source(self) -> str:
        """Return the script that the shell runs to complete words. Its template is the file
        ``completion.NAME``, e.g. ``completion.bash``."""
        template = Path(__file__).with_suffix(f".{self.name}").read_text(encoding="utf-8")
        return template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words of the line before the cursor, and the unfinished word."""
        # The added letter keeps an empty last word.
        _, *words = split_arg_string(os.environ.get("COMP_LINE", "") + "x")
        return words[:-1], words[-1][:-1] if words else ""

    def format_completion(self, item: CompletionItem[Any]) -> str:
        value = self.written(str(item.value)) if item.type == "plain" else str(item.value)
        kind = "part" if item.type == "plain" and value.endswith(("=", "/")) else item.type
        return f"{kind},{value}"

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        try:
            items = super().get_completions(args, incomplete)
        except HarnessError:
            return []  # the user is still typing; the command itself reports the error
        # Omit values with control characters or line breaks, which would affect the terminal.
        return [item for item in items if str(item.value).isprintable()]

    def written(self, value: str) -> str:
        """Return the text that the shell inserts when the user chooses a suggested value."""
        return value


class Bash(_Shell):
    """Completion in bash, which breaks words at ``=``, ``:`` and ``@``.

    Values are cut to the part after the last of these breaks, because bash keeps the text before
    it. Special characters in values are escaped.
    """

    name: ClassVar[str] = "bash"

    def written(self, value: str) -> str:
        line = os.environ.get("COMP_LINE", "")
        if quote := _open_quote(line):
            return value if quote not in value else ""
        _, unfinished = self.get_completion_args()
        before = _escaped(
            unfinished.partition("=")[2] if re.match("--[^=]*=", unfinished) else unfinished
        )
        breaks = set(os.environ.get("COMP_WORDBREAKS", "=:@"))
        # A word begins after such a character, but ``@`` is part of the word that follows.
        starts = [
            before.rfind(character) + (character != "@")
            for character in "=:@"
            if character in breaks
        ]
        return _escaped(value)[max(0, *starts) :]


class Zsh(_Shell):
    """Completion in zsh. Unlike bash, zsh escapes special characters in values."""

    name: ClassVar[str] = "zsh"


class Fish(_Shell):
    """Completion in fish. Unlike bash, fish escapes special characters in values."""

    name: ClassVar[str] = "fish"


SHELLS = (Bash, Zsh, Fish)


def register(variable: str) -> None:
    """Register the completion classes of bash, zsh and fish with click.

    Raises:
        UsageError: the environment variable ``variable``, which requests completion, has an unknown
            value.
    """
    requested = os.environ.get(variable)
    allowed = [f"{shell.name}_{what}" for shell in SHELLS for what in ("source", "complete")]
    if requested and requested not in allowed:
        sources = ", ".join(name for name in allowed if name.endswith("source"))
        raise UsageError(f"{variable} must be one of {sources}, found {requested!r}")
    for shell in SHELLS:
        add_completion_class(shell)


def _escaped(value: str) -> str:
    return re.sub(r"([^\w@%+=:,./~^-])", r"\\\1", value)


def _open_quote(line: str) -> str:
    """Return the quotation mark that is open at the end of a command line, or an empty string."""
    bare = re.sub(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", "", line)
    return next((char for char in bare if char in "'\""), "")
