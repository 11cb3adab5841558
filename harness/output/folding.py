"""Wrapping of text between words, but never within commands that users copy.

A command is treated as one word, and so is an option with its value. A command that is wider than
the terminal stays on one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# The minimum width of the last column of a row; a narrower last column starts on a new line.
ROOM = 24
# The columns of a row before the last column.
_LAST = re.compile(r"\s*\S.*\S\s{2,}(?=\S)")
# Substitutes for spaces and hyphens that must not break. Texts contain no control characters.
_KEPT, _OWN = str.maketrans(" -", "\0\1"), str.maketrans("\0\1", " -")
# The start of a command, and its arguments in the syntax of a shell; other text is no argument. The
# length of an interpreter's path is limited, because every quote in a text starts a search for it.
_HEAD = r"(?:harness [a-z]+|(?:\S{1,300} -m )?pip install)\b"
_WORD = r"""(?:[\w@%+=:,./~*-]|'[^'\n]*'|\$'(?:\\.|[^'\\\n])*'|"[^"\n]*")+"""
_COPIED = re.compile(
    "|".join(
        (
            rf"(?<!\w)'{_HEAD}[^'\n]*'",
            rf"`{_HEAD}[^`\n]*`",
            # Without quotes, a command ends the sentence or is in its own column.
            rf"(?:^[ \t]*|(?<=: )|(?<=\brun )|(?<=  )){_HEAD}(?: {_WORD})*",
            r"""--[a-z][a-z-]*(?: (?:[\w./:@*-]*=\S+|\S+@\S+|'[^'\n]+'|[A-Z]+\b))?""",
        )
    ),
    re.MULTILINE,
)


def wrap(text: str, columns: int, further: int = 2) -> str:
    """Wrap a text to lines of at most ``columns`` characters, without breaking words or commands.

    Continuation lines are indented by ``further`` spaces, or by less so that a long word fits. In a
    table row, whose last column follows at least two spaces, they are instead aligned with the last
    column, if at least :data:`ROOM` characters remain there.
    """
    lines: list[str] = []
    for row in protect_commands(text).expandtabs().split("\n"):
        if width(row) <= columns:
            lines.append(row)
            continue
        before = len(row) - len(row.lstrip())
        margin = min(before + further, columns // 2)
        columned = _LAST.match(row)
        last = columned[0] if columned else ""
        if last and columns - width(last) >= ROOM:
            lines += _broken(row, columns, width(last))
        elif last and width(last.rstrip()) <= columns:
            lines += [last.rstrip(), *_broken(" " * margin + row[len(last) :], columns, margin)]
        else:
            lines += _broken(row, columns, margin)
    return restore_spaces("\n".join(lines))


def protect_commands(text: str) -> str:
    """Replace the spaces and hyphens in commands by control characters, so that :func:`wrap` does
    not break commands. :func:`restore_spaces` reverses this."""
    return _COPIED.sub(lambda match: _joined(match[0]), text)


def restore_spaces(text: str) -> str:
    """Replace the control characters of :func:`protect_commands` by spaces and hyphens again."""
    return text.translate(_OWN)


def width(text: str) -> int:
    """Return the number of terminal columns that a text takes after :func:`restore_spaces`."""
    return _cells(restore_spaces(text))


def _joined(command: str) -> str:
    """Return a command whose inner spaces and hyphens are replaced by control characters. Spaces
    before the command stay, so a line can break there."""
    bare = command.lstrip()
    return command[: len(command) - len(bare)] + bare.translate(_KEPT)


def _broken(row: str, columns: int, margin: int) -> Iterator[str]:
    """Yield the lines into which ``row`` is wrapped. All lines except the first are indented by
    ``margin`` spaces."""
    current = ""
    for word in re.split(r"(?<=\s)(?=\S)", row):
        if current.strip() and width((current + word).rstrip()) > columns:
            yield current.rstrip()
            room = columns - width(word.rstrip())
            current = " " * (min(margin, room) if room >= 0 else margin)
        current += word
    yield current.rstrip()


def _cells(text: str) -> int:
    """Return the number of terminal columns that a text takes. The package rich, which is slow to
    import, is used only for non-ASCII text."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
