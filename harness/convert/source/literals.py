"""Text of others in generated source: the one way in which it gets there, as a literal.

Whatever of a spec, a file's name or a file of weights stands in a source file goes through
:func:`text`, :func:`text_lines` or, in docstrings and comments, :func:`prose`. All of them give
printable ASCII that cannot end what it stands in.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Collection, Iterable

# Names of a spec as names of Python.

# What Python's own words mean must not change in a file. ``_`` is for what nobody reads.
PYTHON = frozenset({*keyword.kwlist, *dir(builtins), "_"})
# What every file has beside its classes and functions.
CONSTANTS = frozenset({"INPUTS", "STATE", "VOCABULARY"})


def camel(name: str, reserved: Collection[str] = ()) -> str:
    """``lesson6/sequence_rnn`` as ``SequenceRnn``; ``TrueModel`` where Python has that already."""
    words = re.split(r"[^A-Za-z0-9]+|_", name.rpartition("/")[2])
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    joined = joined if joined[:1].isalpha() else f"Model{joined}"
    return unique(f"{joined}Model", reserved) if joined in {*PYTHON, *reserved} else joined


def identifier(name: str, reserved: Collection[str] = ()) -> str:
    """The name itself, or with ``_`` behind it where Python or ``reserved`` has it."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not plain.strip("_") or plain[0].isdigit():
        plain = f"v{plain}"
    return f"{plain}_" if keyword.iskeyword(plain) or plain in reserved else plain


def uses(lines: Iterable[str], module: str) -> bool:
    """Whether any line reads from a module, and not from a name that ends as the module's does."""
    return any(re.search(rf'(?<![\w."]){module}\.', line) for line in lines)


def unique(base: str, taken: Collection[str]) -> str:
    """``base``, or ``base_2``, ``base_3`` ... if that is taken."""
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


# What a name is made of, and nothing that means something to Python or to a template.
_NAME = re.compile(r"[A-Za-z0-9_./:-]+", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_./: -]", re.ASCII)
# A quote beside another one, or at the end of a line, where three may follow.
_QUOTES = re.compile(r'"(?=")|(?<=")"|"\Z')


def text(value: str) -> str:
    """A name or another short text as a literal in double quotes.

    Brackets, commas and percent signs are escaped too: lines are broken at those, and templates
    are filled where those stand.
    """
    pieces = (c if _PLAIN.fullmatch(c) else _code(c) for c in value)
    return '"' + "".join(pieces) + '"'


def text_lines(value: str, width: int) -> list[str]:
    """A long string as literals that Python joins, one a line."""
    lines = [""]
    for character in value:
        piece = _escaped(character)
        if len(lines[-1]) + len(piece) + 2 > width:
            lines.append("")
        lines[-1] += piece
    return [f'"{line}"' for line in lines]


def told(name: str) -> str:
    """A name in prose: itself, or as a literal where it is made of anything else."""
    return name if _NAME.fullmatch(name) else text(name)


def prose(line: str) -> str:
    """A line of a docstring or a comment: nothing in it ends that, or the line."""
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
