"""Conversion of untrusted text into literals of generated source.

All text from a spec, a file name or a file of weights goes through :func:`text`, :func:`text_lines`
or, in docstrings and comments, :func:`prose`. These functions return printable ASCII that cannot
end the literal or the comment.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Collection, Iterable

# Conversion of the names in a spec to Python names.

# A generated file must not redefine Python's keywords and builtins. ``_`` is for unused values.
PYTHON = frozenset({*keyword.kwlist, *dir(builtins), "_"})
# The constants that every generated file has.
CONSTANTS = frozenset({"INPUTS", "STATE", "VOCABULARY"})


def camel(name: str, reserved: Collection[str] = ()) -> str:
    """Make a class name from a model's name, e.g. ``SequenceRnn`` from ``lesson6/sequence_rnn``.
    Append ``Model`` if the class name is reserved."""
    words = re.split(r"[^A-Za-z0-9]+|_", name.rpartition("/")[2])
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    joined = joined if joined[:1].isalpha() else f"Model{joined}"
    return unique(f"{joined}Model", reserved) if joined in {*PYTHON, *reserved} else joined


def identifier(name: str, reserved: Collection[str] = ()) -> str:
    """Return ``name`` as a Python identifier, with a trailing ``_`` if it is reserved."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not plain.strip("_") or plain[0].isdigit():
        plain = f"v{plain}"
    return f"{plain}_" if keyword.iskeyword(plain) or plain in reserved else plain


def uses(lines: Iterable[str], module: str) -> bool:
    """Return whether any line uses a module, e.g. ``math.pi`` for the module ``math``, but not
    ``my_math.pi``."""
    return any(re.search(rf'(?<![\w."]){module}\.', line) for line in lines)


def unique(base: str, taken: Collection[str]) -> str:
    """Return ``base`` if no name in ``taken`` equals it; otherwise ``base_2``, ``base_3`` and so
    on."""
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


# The characters that need no quotes or escapes in a name.
_NAME = re.compile(r"[A-Za-z0-9_./:-]+", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_./: -]", re.ASCII)
# A quote next to another quote or at the end of a line: three quotes would end the docstring.
_QUOTES = re.compile(r'"(?=")|(?<=")"|"\Z')


def text(value: str) -> str:
    """Return the Python literal of a name or other short text, in double quotes.

    Brackets, commas and percent signs are escaped too: long lines of source are later broken at
    commas and brackets, and templates are filled in at percent signs.
    """
    pieces = (c if _PLAIN.fullmatch(c) else _code(c) for c in value)
    return '"' + "".join(pieces) + '"'


def text_lines(value: str, width: int) -> list[str]:
    """Return a long string as several string literals of at most ``width`` characters, one per
    line, which Python joins."""
    lines = [""]
    for character in value:
        piece = _escaped(character)
        if len(lines[-1]) + len(piece) + 2 > width:
            lines.append("")
        lines[-1] += piece
    return [f'"{line}"' for line in lines]


def name_text(name: str) -> str:
    """Return a name for docstrings: unchanged, or as a literal if it has unusual characters."""
    return name if _NAME.fullmatch(name) else text(name)


def prose(line: str) -> str:
    """Escape a line of a docstring or comment, so that it cannot end the docstring or the line."""
    plain = "".join(c if c == '"' else _escaped(c) for c in line)
    return _QUOTES.sub('\\"', plain)


def _escaped(character: str) -> str:
    if character == "\n":
        return "\\n"
    return character if " " <= character <= "~" and character not in '"\\' else _code(character)


def _code(character: str) -> str:
    code = ord(character)
    if code < 256:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
