"""Printing of all output, so that no untrusted text affects the terminal or CI.

Control characters can move the cursor, set the window's title or send keyboard input. The package
rich interprets square brackets as markup. So all output goes through :func:`say`, or through
:func:`line` and :func:`entry` to a console. GitHub Actions interprets some lines as commands: the
standard streams let only the commands of :func:`annotate` pass.
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

from harness.output.folding import wrap

# Workflow commands of GitHub Actions: no untrusted text may become a command. The runner reads the
# output of a step. A line is a command if it begins with ``::`` (after skipped characters), such as
# ``::set-output name=x::y``; so is ``##[`` anywhere in a line. The last character of ``::`` or
# ``##[`` is printed as an escape, which is also valid in a JSON string.

# Characters that the runner may skip: all except visible ASCII, letters and digits.
_SKIPPED = r"[^\r\n!-~\w]*"
_MARK = re.compile(
    rf"(?P<line>(?<![^\r\n]){_SKIPPED}:{_SKIPPED}):|(?P<old>#{_SKIPPED}#{_SKIPPED})\["
)
_LINE_BEGUN = re.compile(rf"{_SKIPPED}(:?){_SKIPPED}")
_OLD_BEGUN = re.compile(rf"#{_SKIPPED}(?:#{_SKIPPED})?\Z")


def annotating(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the process runs in GitHub Actions, which interprets some lines of output as
    commands."""
    return environment.get("GITHUB_ACTIONS") == "true"


class CommandFilter:
    """A filter that escapes commands of GitHub Actions, such as ``::error::``, in a text. The text
    is passed to the filter piece by piece."""

    def __init__(self) -> None:
        # The end of the last piece that may be the beginning of a command.
        self.begun = ""

    def __call__(self, piece: str) -> str:
        """Return ``piece``, the next part of the text, with commands escaped. This includes a
        command that began in the previous piece."""
        text = _MARK.sub(_mark_escaped, self.begun + piece)
        escaped = text[len(self.begun) :]
        self.begun = _begun(re.split(r"[\r\n]", text)[-1])
        return escaped


def harmless(text: str) -> str:
    """Return a text that cannot contain commands for GitHub Actions: they are escaped if the
    process runs there. Elsewhere, the text is unchanged."""
    return CommandFilter()(text) if annotating() else text


def _mark_escaped(mark: re.Match[str]) -> str:
    return f"{mark['line']}\\u003a" if mark["line"] is not None else f"{mark['old']}\\u005b"


def _begun(line: str) -> str:
    if match := _LINE_BEGUN.fullmatch(line):
        return match[1]
    match = _OLD_BEGUN.search(line)
    return "x" + "#" * match[0].count("#") if match else "x"


if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Control characters except tab and line feed, characters that change the direction of writing, and
# lone surrogates, which cannot be encoded.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# The default columns of a terminal, the columns of unlimited output, and the lines of a screen.
USUAL, UNLIMITED, LINES = 80, 1_000_000, 25


# True while a Python function runs a command, which must print nothing.
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """Suppress all output in the block, as a context manager."""
    before = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(before)


def is_silent() -> bool:
    """Return whether output is suppressed at present."""
    return _SILENT.get()


class OutputLost(Exception):
    """Error: standard output cannot be written. ``closed`` is True if the pipe's reader has
    ended."""

    def __init__(self, error: OSError) -> None:
        super().__init__((error.strerror or str(error)).lower())
        self.closed = error.errno == errno.EPIPE


class _Output(io.RawIOBase):
    """A raw stream, whose writes may fail, e.g. because the reader of a pipe has ended.

    With ``report_errors``, a failed write raises :class:`OutputLost`; otherwise the failure is
    ignored.
    """

    def __init__(self, raw: io.RawIOBase, *, report_errors: bool) -> None:
        self._raw, self._report_errors = raw, report_errors

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
            if self._report_errors:
                raise OutputLost(error) from None
            return len(data)


class _Guarded(io.TextIOWrapper):
    """A standard stream that escapes commands for GitHub Actions in all text. Only the method
    :meth:`annotate` can write commands."""

    _filter: CommandFilter | None = None

    def write(self, text: str) -> int:
        super().write(text if self._filter is None else self._filter(text))
        return len(text)

    def annotate(self, text: str) -> None:
        """Write a command for GitHub Actions, e.g. an annotation."""
        self.write("\n" if self._filter is not None and self._filter.begun else "")
        super().write(f"{text}\n")
        self.flush()


def guard_streams() -> None:
    """Replace standard output and standard error by streams that escape commands for GitHub
    Actions, and characters that the streams' encoding does not have.

    If standard output cannot be written, a write raises :class:`OutputLost`.
    """
    sys.stdout = _guarded(sys.stdout, report_errors=True)
    sys.stderr = _guarded(sys.stderr, report_errors=False)


def _guarded(stream: TextIO | None, *, report_errors: bool) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    # With PYTHONUNBUFFERED there is no buffer between the text and the file.
    raw: Any = getattr(stream.buffer, "raw", stream.buffer)
    terminal = stream.isatty() or not report_errors
    buffer = io.BufferedWriter(_Output(raw, report_errors=report_errors))
    guarded = _Guarded(
        buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=terminal
    )
    if annotating():
        guarded._filter = CommandFilter()
    return guarded


def abandon_output() -> None:
    """Discard all further output, so that the output at the end of the process cannot fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def visible(text: str) -> str:
    """Return the text with control characters as ``\\x1b``; line feeds and tabs stay."""
    return _UNSEEN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def shown(text: str) -> str:
    """Return the text as :func:`say` would print it, i.e. escaped, for callers that print it
    themselves."""
    return harmless(visible(text))


def one_line(text: str) -> str:
    """Return the text with ``\\n`` in place of a line feed."""
    return visible(text).replace("\n", "\\n")


def annotate(text: str) -> None:
    """Print a command for GitHub Actions, e.g. an annotation, on standard error."""
    if isinstance(sys.stderr, _Guarded):
        sys.stderr.annotate(text)
    else:
        _write(sys.stderr, f"{text}\n")


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """Print a text with control characters escaped, and flush the stream. The stream is standard
    output, or standard error if ``error``."""
    _write(sys.stderr if error else sys.stdout, shown(text) + end)


def emit(text: str) -> None:
    """Print generated text (e.g. help, or characters that a model chose). Control characters are
    escaped only on terminals."""
    _write(sys.stdout, visible(text) if sys.stdout.isatty() else text)


def _write(stream: TextIO, text: str) -> None:
    # click.echo would treat an ASCII stream as UTF-8.
    if not _SILENT.get():
        stream.write(text)
        stream.flush()


def tell(text: str, *, error: bool = False) -> None:
    """Print a text, wrapped to the width of the terminal, with control characters escaped. The
    stream is standard output, or standard error if ``error``."""
    wide = width(sys.stderr if error else sys.stdout)
    say(text if wide is None else wrap(visible(text), wide), error=error)


def width(stream: TextIO) -> int | None:
    """Return the maximum width of a line on ``stream``: the value of the environment variable
    ``COLUMNS``, or the number of columns of the stream's terminal; return None if there is no
    limit."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL
    except OSError:
        return USUAL


def console(*, error: bool = False) -> Console:
    """Return a rich console on standard output, or on standard error if ``error``. Lines have no
    maximum width if the stream has none."""
    from rich.console import Console

    if _SILENT.get():
        return Console(file=io.StringIO())
    stream = sys.stderr if error else sys.stdout
    # Rich itself asks a real terminal for its size each time. For a dumb terminal, and for a pipe
    # with FORCE_COLOR, rich would assume 80 columns unless both sizes are given.
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Console(stderr=error)
    return Console(stderr=error, width=width(stream) or UNLIMITED, height=LINES)


def drawing(stream: TextIO) -> Console:
    """Return a rich console that writes to ``stream`` without colour. It has the width of standard
    output."""
    from rich.console import Console

    columns = width(sys.stdout) or UNLIMITED
    return Console(file=stream, width=columns, color_system=None, legacy_windows=False)


def is_live(target: Console) -> bool:
    """Return whether a console is a terminal on which text can be overwritten, e.g. a progress
    bar."""
    return target.file.isatty() and not target.is_dumb_terminal


def line(target: Console, text: str, style: str = "", further: int = 2) -> None:
    """Print a text on the console ``target``, above its progress bar; ``further`` is the indent of
    wrapped lines."""
    folded = harmless(wrap(one_line(text), target.width, further))
    target.print(entry(folded, style), highlight=False, soft_wrap=True)


def entry(text: str, style: str = "") -> Text:
    """Return a text as an entry of a table or progress bar, with control characters escaped."""
    from rich.text import Text

    return Text(visible(text), style)
