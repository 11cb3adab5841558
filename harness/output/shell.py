"""Commands as text that can be pasted into a shell, even if names have special characters."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from harness.output.printing import visible


def command_line(words: Iterable[str]) -> str:
    """Return the arguments of a command on one line, each quoted for a shell if necessary."""
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    """Return an argument quoted for bash and zsh, with control characters as ``$'...'`` escapes."""
    if visible(word) == word and not {"\n", "\t"} & set(word):
        return shlex.quote(word)
    return f"$'{''.join(map(_escaped, word))}'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if visible(character) == character and character not in "\n\t":
        return character
    # Python stores an undecodable byte of a file name as a lone surrogate.
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors))
