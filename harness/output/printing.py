"""Printing: the only way out, so that no untrusted text acts on the terminal or in CI.

Control characters move the cursor, set the window's title or feed the keyboard, and rich takes
square brackets for markup. All output goes through :func:`say`, or through :func:`line` and
:func:`entry` to a console. GitHub Actions takes some lines for commands: the standard streams pass
only those of :func:`annotate`.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from harness.output.folding import wrapped

# Workflow commands of GitHub Actions: no untrusted text may become one. The runner reads the output
# of a step. A line that begins with ``::``, after skipped characters, is a command, such as
# ``::set-output name=x::y``; so is ``##[`` anywhere in a line. The last character of such a mark is
# shown as an escape, which is also valid in a JSON string.

# Characters that the runner may skip: all but visible ASCII, letters and digits.
_SKIPPED = r"[^\r\n!-~\w]*"
_MARK = re.compile(
    rf"(?P<line>(?<![^\r\n]){_SKIPPED}:{_SKIPPED}):|(?P<old>#{_SKIPPED}#{_SKIPPED})\["
)
_LINE_BEGUN = re.compile(rf"{_SKIPPED}(:?){_SKIPPED}")
_OLD_BEGUN = re.compile(rf"#{_SKIPPED}(?:#{_SKIPPED})?\Z")


def annotating(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether GitHub Actions reads what is printed."""
    return environment.get("GITHUB_ACTIONS") == "true"


class CommandFilter:
    """Filter that removes the commands from a text that comes in pieces."""

    def __init__(self) -> None:
        # The end of the last piece that may begin a mark.
        self.begun = ""

    def __call__(self, piece: str) -> str:
        """Return the piece without commands."""
        text = _MARK.sub(_mark_escaped, self.begun + piece)
        found = text[len(self.begun) :]
        self.begun = _begun(re.split(r"[\r\n]", text)[-1])
        return found


def harmless(text: str) -> str:
    """Return a text, without commands if GitHub Actions reads the output."""
    return CommandFilter()(text) if annotating() else text


def _mark_escaped(mark: re.Match[str]) -> str:
    return f"{mark['line']}\\u003a" if mark["line"] is not None else f"{mark['old']}\\u005b"


def _begun(line: str) -> str:
    if found := _LINE_BEGUN.fullmatch(line):
        return found[1]
    found = _OLD_BEGUN.search(line)
    return "x" + "#" * found[0].count("#") if found else "x"


if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Control characters except tab and line feed, marks that change the direction of writing, and lone
# surrogates, which cannot be written.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# Default columns of a terminal, columns of unlimited output, and lines of a screen.
USUAL, UNLIMITED, LINES = 80, 1_000_000, 25


# Whether nothing is printed, because a Python function does the work of a command.
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """Print nothing in the block."""
    before = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(before)


def is_silent() -> bool:
    """Return whether nothing is printed at present."""
    return _SILENT.get()


class OutputLost(Exception):
    """Error for standard output that takes no more; ``closed`` says that the reader has left."""

    def __init__(self, error: OSError) -> None:
        super().__init__((error.strerror or str(error)).lower())
        self.closed = error.errno == errno.EPIPE


class _Output(io.RawIOBase):
    """Raw stream that raises :class:`OutputLost` on failure, or drops the data if not ``told``."""

    def __init__(self, raw: io.RawIOBase, *, told: bool) -> None:
        self._raw, self._told = raw, told

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
            if self._told:
                raise OutputLost(error) from None
            return len(data)


class _Guarded(io.TextIOWrapper):
    """Standard stream in which no text is a command to GitHub Actions."""

    _filter: CommandFilter | None = None

    def write(self, text: str) -> int:
        super().write(text if self._filter is None else self._filter(text))
        return len(text)

    def annotate(self, text: str) -> None:
        """Write a workflow command for GitHub."""
        self.write("\n" if self._filter is not None and self._filter.begun else "")
        super().write(f"{text}\n")
        self.flush()


def guard_streams() -> None:
    """Let both standard streams take any text without GitHub commands; failures of standard output
    raise :class:`OutputLost`."""
    sys.stdout = _guarded(sys.stdout, told=True)
    sys.stderr = _guarded(sys.stderr, told=False)


def _guarded(stream: TextIO | None, *, told: bool) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    # Under PYTHONUNBUFFERED there is no buffer between the text and the file.
    raw: Any = getattr(stream.buffer, "raw", stream.buffer)
    terminal = stream.isatty() or not told
    buffer = io.BufferedWriter(_Output(raw, told=told))
    guarded = _Guarded(
        buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=terminal
    )
    if annotating():
        guarded._filter = CommandFilter()
    return guarded


def abandon_output() -> None:
    """Discard all further output, so that nothing fails when the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def visible(text: str) -> str:
    """Return the text with control characters as ``\\x1b``; lines and tabs stay."""
    return _UNSEEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def shown(text: str) -> str:
    """Return the text as :func:`say` prints it, for callers that print it themselves."""
    return harmless(visible(text))


def one_line(text: str) -> str:
    """Return the text with ``\\n`` in place of a line feed."""
    return visible(text).replace("\n", "\\n")


def annotate(text: str) -> None:
    """Print a workflow command for GitHub, on standard error."""
    if isinstance(sys.stderr, _Guarded):
        sys.stderr.annotate(text)
    else:
        _write(sys.stderr, f"{text}\n")


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """Print a text at once, with control characters escaped."""
    _write(sys.stderr if error else sys.stdout, shown(text) + end)


def emit(text: str) -> None:
    """Print a part of a generated text, with control characters escaped on terminals only."""
    _write(sys.stdout, visible(text) if sys.stdout.isatty() else text)


def _write(stream: TextIO, text: str) -> None:
    # click.echo would take an ASCII stream for UTF-8.
    if not _SILENT.get():
        stream.write(text)
        stream.flush()


def tell(text: str, *, error: bool = False) -> None:
    """Print a text for people: as :func:`say` does, and wrapped on a terminal."""
    wide = width(sys.stderr if error else sys.stdout)
    say(text if wide is None else wrapped(visible(text), wide), error=error)


def width(stream: TextIO) -> int | None:
    """Return ``COLUMNS`` or the columns of the stream's terminal; None if nothing limits it."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL
    except OSError:
        return USUAL


def console(*, error: bool = False) -> Console:
    """Return a console on standard output or error; unlimited if the stream has no width."""
    from rich.console import Console

    if _SILENT.get():
        return Console(file=io.StringIO())
    stream = sys.stderr if error else sys.stdout
    # Rich asks a live terminal again and again itself. For a pipe that FORCE_COLOR makes a
    # terminal, and for a dumb terminal, rich would assume 80 columns unless both sizes are given.
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Console(stderr=error)
    return Console(stderr=error, width=width(stream) or UNLIMITED, height=LINES)


def drawing(stream: TextIO) -> Console:
    """Return a console for text that a program reads: no colour, as wide as standard output."""
    from rich.console import Console

    columns = width(sys.stdout) or UNLIMITED
    return Console(file=stream, width=columns, color_system=None, legacy_windows=False)


def is_live(target: Console) -> bool:
    """Return whether a console is a terminal that can overwrite its text."""
    return target.file.isatty() and not target.is_dumb_terminal


def line(target: Console, text: str, style: str = "", further: int = 2) -> None:
    """Print any text as one line on a console, above its progress bar."""
    folded = harmless(wrapped(one_line(text), target.width, further))
    target.print(entry(folded, style), highlight=False, soft_wrap=True)


def entry(text: str, style: str = "") -> Text:
    """Return any text as the entry of a table or of a progress bar."""
    from rich.text import Text

    return Text(visible(text), style)
