"""Lines of at most so many columns: broken between words, and never inside of what is copied.

A command that a message tells of counts as one word, and so does an option with its value: where it
does not fit, it goes on behind the edge, as one line that can be copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Columns below which what is right of others is shown in a line of its own.
ROOM = 24
# A row of columns, up to the last of them.
_LAST = re.compile(r"\s*\S.*\S\s{2,}(?=\S)")
# What stands for spaces and hyphens that no line is broken at. Texts have no control characters.
_KEPT, _OWN = str.maketrans(" -", "\0\1"), str.maketrans("\0\1", " -")
# How a command begins, and a word of it as a shell takes it: prose goes on behind other characters.
# An interpreter's path has a limit: it is looked for at every quote of a text.
_HEAD = r"(?:harness [a-z]+|(?:\S{1,300} -m )?pip install)\b"
_WORD = r"""(?:[\w@%+=:,./~*-]|'[^'\n]*'|\$'(?:\\.|[^'\\\n])*'|"[^"\n]*")+"""
_COPIED = re.compile(
    "|".join(
        (
            rf"(?<!\w)'{_HEAD}[^'\n]*'",
            rf"`{_HEAD}[^`\n]*`",
            # Without marks it ends the sentence, or stands in a column of its own.
            rf"(?:^[ \t]*|(?<=: )|(?<=\brun )|(?<=  )){_HEAD}(?: {_WORD})*",
            r"""--[a-z][a-z-]*(?: (?:[\w./:@*-]*=\S+|\S+@\S+|'[^'\n]+'|[A-Z]+\b))?""",
        )
    ),
    re.MULTILINE,
)


def wrapped(text: str, columns: int, further: int = 2) -> str:
    """The text with lines of at most so many columns, broken between words; words stay whole.

    What goes on in a further line stands below the last of the columns that the line has, which are
    apart by two spaces or more; where too little room is left there it is indented by ``further``
    more than the line that it belongs to, and by less if a word needs that.
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
    """The text with others for the spaces and hyphens of what is copied, until it is
    :func:`restored`."""
    return _COPIED.sub(lambda found: _joined(found[0]), text)


def restored(text: str) -> str:
    """The text with its own spaces and hyphens."""
    return text.translate(_OWN)


def width(text: str) -> int:
    """The columns that a text takes."""
    return _cells(restored(text))


def _joined(command: str) -> str:
    """Its inner spaces are kept: those before it are the line's."""
    bare = command.lstrip()
    return command[: len(command) - len(bare)] + bare.translate(_KEPT)


def _broken(row: str, columns: int, margin: int) -> Iterator[str]:
    """One line in several, the others behind a margin."""
    current = ""
    for word in re.split(r"(?<=\s)(?=\S)", row):
        if current.strip() and width((current + word).rstrip()) > columns:
            yield current.rstrip()
            room = columns - width(word.rstrip())
            current = " " * (min(margin, room) if room >= 0 else margin)
        current += word
    yield current.rstrip()


def _cells(text: str) -> int:
    """Columns that a text takes. The library that knows is only imported for letters that may be
    wide: help starts at once."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
