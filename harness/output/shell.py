"""Commands as text: whatever a name holds, a command that is shown can be pasted into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from harness.output.printing import visible


def command_line(words: Iterable[str]) -> str:
    """Return the words on one line, each quoted as a shell needs it."""
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    """Return a word that a shell reads as just that; control characters as escapes in ``$'...'``,
    which bash and zsh know."""
    if visible(word) == word and not {"\n", "\t"} & set(word):
        return shlex.quote(word)
    return f"$'{''.join(map(_escaped, word))}'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if visible(character) == character and character not in "\n\t":
        return character
    # A byte of a file name that is no text is kept as half of a pair.
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors))
