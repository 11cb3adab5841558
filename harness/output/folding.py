"""Wrapping of lines: broken between words, but never within commands to copy.

A command counts as one word, and so does an option with its value. If it does not fit, it runs past
the edge as one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Minimum columns for the last column of a row; below, it gets its own line.
ROOM = 24
# A row of columns, up to the last one.
_LAST = re.compile(r"\s*\S.*\S\s{2,}(?=\S)")
# Substitutes for spaces and hyphens that must not break. Texts have no control characters.
_KEPT, _OWN = str.maketrans(" -", "\0\1"), str.maketrans("\0\1", " -")
# The start of a command, and its words as a shell reads them; prose continues differently. An
# interpreter's path has a limit, because it is searched for at every quote of a text.
_HEAD = r"(?:harness [a-z]+|(?:\S{1,300} -m )?pip install)\b"
_WORD = r"""(?:[\w@%+=:,./~*-]|'[^'\n]*'|\$'(?:\\.|[^'\\\n])*'|"[^"\n]*")+"""
_COPIED = re.compile(
    "|".join(
        (
            rf"(?<!\w)'{_HEAD}[^'\n]*'",
            rf"`{_HEAD}[^`\n]*`",
            # Without quotes, a command ends the sentence or stands in its own column.
            rf"(?:^[ \t]*|(?<=: )|(?<=\brun )|(?<=  )){_HEAD}(?: {_WORD})*",
            r"""--[a-z][a-z-]*(?: (?:[\w./:@*-]*=\S+|\S+@\S+|'[^'\n]+'|[A-Z]+\b))?""",
        )
    ),
    re.MULTILINE,
)


def wrapped(text: str, columns: int, further: int = 2) -> str:
    """Return the text with lines of at most ``columns``, broken between words; words stay whole.

    A continuation line stands below the last column, which follows two spaces or more. If too
    little room is left there, it is indented by ``further``, or by less if a word needs the room.
    """
    found: list[str] = []
    for row in unbroken(text).expandtabs().split("\n"):
        if width(row) <= columns:
            found.append(row)
            continue
        before = len(row) - len(row.lstrip())
        margin = min(before + further, columns // 2)
        columned = _LAST.match(row)
        last = columned[0] if columned else ""
        if last and columns - width(last) >= ROOM:
            found += _broken(row, columns, width(last))
        elif last and width(last.rstrip()) <= columns:
            found += [last.rstrip(), *_broken(" " * margin + row[len(last) :], columns, margin)]
        else:
            found += _broken(row, columns, margin)
    return restored("\n".join(found))


def unbroken(text: str) -> str:
    """Return the text with substitutes for spaces in commands, until it is :func:`restored`."""
    return _COPIED.sub(lambda found: _joined(found[0]), text)


def restored(text: str) -> str:
    """Return the text with its spaces and hyphens again."""
    return text.translate(_OWN)


def width(text: str) -> int:
    """Return the number of columns that a text takes."""
    return _cells(restored(text))


def _joined(command: str) -> str:
    """Replace the inner spaces of a command; spaces before it belong to the line."""
    bare = command.lstrip()
    return command[: len(command) - len(bare)] + bare.translate(_KEPT)


def _broken(row: str, columns: int, margin: int) -> Iterator[str]:
    """Yield the parts of a broken line; all but the first are indented by a margin."""
    current = ""
    for word in re.split(r"(?<=\s)(?=\S)", row):
        if current.strip() and width((current + word).rstrip()) > columns:
            yield current.rstrip()
            room = columns - width(word.rstrip())
            current = " " * (min(margin, room) if room >= 0 else margin)
        current += word
    yield current.rstrip()


def _cells(text: str) -> int:
    """Return the number of columns that a text takes; import rich only for non-ASCII text."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
