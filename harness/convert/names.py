"""Names of a spec as names of Python."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection


def camel(name: str) -> str:
    """``lesson6/sequence_rnn`` as ``SequenceRnn``."""
    words = re.split(r"[^A-Za-z0-9]+|_", name.rpartition("/")[2])
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return joined if joined[:1].isalpha() else f"Model{joined}"


def identifier(name: str, reserved: Collection[str] = ()) -> str:
    """The name itself, or with ``_`` behind it where Python or ``reserved`` has it."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not plain or plain[0].isdigit():
        plain = f"v{plain}"
    return f"{plain}_" if keyword.iskeyword(plain) or plain in reserved else plain


def unique(base: str, taken: Collection[str]) -> str:
    """``base``, or ``base_2``, ``base_3`` ... if that is taken."""
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def text(value: str) -> str:
    """A string as a literal in double quotes, of printable ASCII."""
    return '"' + "".join(_escaped(c) for c in value) + '"'


def _escaped(character: str) -> str:
    if character == "\n":
        return "\\n"
    if " " <= character <= "~" and character not in '"\\':
        return character
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def text_lines(value: str, width: int) -> list[str]:
    """A long string as literals that Python joins, one a line."""
    lines = [""]
    for character in value:
        piece = _escaped(character)
        if len(lines[-1]) + len(piece) + 2 > width:
            lines.append("")
        lines[-1] += piece
    return [f'"{line}"' for line in lines]
