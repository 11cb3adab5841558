"""The one door for what is printed: nothing of a stranger's text acts on the terminal.

A name, a message or a file name may hold control characters, which move the cursor, set the
window's title or feed the keyboard, and square brackets, which rich takes for markup. Whatever is
printed goes through :func:`say`, or through :func:`line` and :func:`entry` to a console.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Controls but for tab and line feed; marks that change the direction of writing, by which a text
# can look like another one; halves of characters, which cannot be written.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class OutputLost(Exception):
    """Standard output takes no more. ``closed`` tells that its reader has gone away."""

    def __init__(self, error: OSError) -> None:
        super().__init__((error.strerror or str(error)).lower())
        self.closed = error.errno == errno.EPIPE


class _Output(io.RawIOBase):
    """Standard output, whose failures are told from those of other files."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: Any) -> int | None:
        try:
            return self._raw.write(data)
        except OSError as error:
            raise OutputLost(error) from None


class _Errors(_Output):
    """Standard error: where nothing can be told any more, nothing is."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OutputLost:
            return len(data)


def guard_streams() -> None:
    """Have standard output raise :class:`OutputLost`, and both streams take any text."""
    sys.stdout = _guarded(sys.stdout, _Output)
    sys.stderr = _guarded(sys.stderr, _Errors)


def _guarded(stream: TextIO | None, kind: type[_Output]) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    # Under PYTHONUNBUFFERED there is no buffer between the text and the file.
    raw: Any = getattr(stream.buffer, "raw", stream.buffer)
    terminal = stream.isatty() or kind is _Errors
    buffer = io.BufferedWriter(kind(raw))
    return io.TextIOWrapper(
        buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=terminal
    )


def abandon_output() -> None:
    """Have what is still to be written go nowhere, so that nothing fails at the process's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def visible(text: str) -> str:
    """The text with ``\\x1b`` in place of control characters; lines and tabs stay."""
    return _UNSEEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """Print a text as it is, but for control characters, and at once."""
    _write(sys.stderr if error else sys.stdout, visible(text) + end)


def emit(text: str) -> None:
    """Print a part of a generated text: to a terminal as :func:`say` does, else unchanged."""
    _write(sys.stdout, visible(text) if sys.stdout.isatty() else text)


def _write(stream: TextIO, text: str) -> None:
    # Not click's echo, which takes a stream of ASCII for one of UTF-8.
    stream.write(text)
    stream.flush()


def console(*, error: bool = False, piped_width: int | None = None) -> Console:
    """A console on standard output or error; ``piped_width`` holds where it is no terminal."""
    from rich.console import Console

    found = Console(stderr=error)
    return found if piped_width is None or found.is_terminal else Console(width=piped_width)


def line(target: Console, text: str) -> None:
    """Print a line of any text on a console, above its progress bar if it has one."""
    target.print(entry(text), highlight=False, soft_wrap=True)


def entry(text: str, style: str = "") -> Text:
    """Any text as the entry of a table or of a progress bar."""
    from rich.text import Text

    return Text(visible(text), style)
