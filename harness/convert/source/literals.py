"""Text of others in generated source: the one way in which it gets there, as a literal.

Whatever of a spec, a file's name or a file of weights stands in a source file goes through
:func:`text`, :func:`text_lines` or, in docstrings and comments, :func:`prose`. All of them give
printable ASCII that cannot end what it stands in.
"""

from __future__ import annotations

import re

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
