"""Error classes, and functions that write error messages: the problem, its place in a file, and the
remedy."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import indent

# Exit codes of commands. `cli.py` and `command/interrupts.py` have further codes, for ends of the
# program itself.
EXIT_PASSED = 0  # everything agrees, or the command has done its work
EXIT_FAILED = 1  # a result differs, was refused, or became worse
EXIT_USAGE = 2  # wrong usage, or a wrong file
EXIT_COULD_NOT_RUN = 3  # a backend could not run, or nothing was compared
# A message with a spelling guess also lists the known names if there are at most this many.
MOST_LISTED = 10
# Names of other programs, with the harness's name for the same thing.
OTHER_WORDS = {
    **dict.fromkeys(("fp64", "f64", "double"), "float64"),
    **dict.fromkeys(("fp32", "f32", "single"), "float32"),
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    "bf16": "bfloat16",
    **dict.fromkeys(("gpu", "nvidia"), "cuda"),
    "gpu:0": "cuda:0",
}
# Smallest similarity (0 to 1) between a misspelled name and a guess: 'sdg' suggests 'sgd', but
# 'nonsense' does not suggest 'dense'.
LIKENESS = 0.65
# Largest number of errors shown for one file; the others are counted.
MOST_ERRORS = 20
# Start of the exception note (`__notes__`) that names the cause; frameworks add other notes.
_BLAME = "in the primitive "


@dataclass(frozen=True, order=True)
class Place:
    """A position in a file. Lines and columns are counted from 1, columns in characters.

    Line 0 means the whole file, e.g. because there is no such file.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return self.file if not self.line else f"{self.file}:{self.line}:{self.column}"


class HarnessError(Exception):
    """Base class of all errors that a user can cause and fix. They are shown without a traceback.

    ``exit_code`` is the exit code of a command that ends with the error.
    """

    exit_code = EXIT_USAGE


class CouldNotRun(HarnessError):
    """Error: a backend could not be run, or the process that writes or reads a model format failed.

    ``traceback`` is the text of the original traceback, or "".
    """

    exit_code = EXIT_COULD_NOT_RUN

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class UsageError(HarnessError):
    """Error: an option of a command, or an argument of a public function, has an invalid value."""


class SpecError(HarnessError):
    """Error: a spec file is wrong. ``message`` says what is wrong. ``place`` is its position; None
    if the error has no position in a file."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message, place)
        self.message = message
        self.place = place

    def __str__(self) -> str:
        return self.message if self.place is None else f"{self.place}: {self.message}"


@contextmanager
def with_place(place: Place) -> Iterator[None]:
    """Add ``place`` to a :class:`SpecError` without a place that the ``with`` block raises."""
    try:
        yield
    except SpecError as error:
        if error.place is not None or isinstance(error, SpecErrors):
            raise
        raise SpecError(error.message, place) from None


class SpecErrors(SpecError):
    """Several errors of one spec file, reported together. ``errors`` has them in the order of the
    file."""

    def __init__(self, errors: Sequence[SpecError]) -> None:
        if not errors:
            raise ValueError("SpecErrors needs at least one error")
        self.errors = tuple(sorted(errors, key=_file_order))
        super().__init__(self.errors[0].message, self.errors[0].place)
        self.args = (self.errors,)

    def __str__(self) -> str:
        more = len(self.errors) - MOST_ERRORS
        lines = [
            *map(str, self.errors[:MOST_ERRORS]),
            *([f"and {more:,} more"] if more > 0 else []),
        ]
        return "\n".join(lines)


class ErrorList:
    """A list of errors in independent sections of a spec. The errors are collected first, and
    raised together at the end."""

    def __init__(self) -> None:
        self.found: list[SpecError] = []

    @contextmanager
    def part(self) -> Iterator[None]:
        """Collect a :class:`SpecError` that the ``with`` block raises, and continue after the
        block."""
        try:
            yield
        except SpecErrors as several_:
            self.found += several_.errors
        except SpecError as error:
            self.found.append(error)

    def end(self) -> None:
        """Raise the collected errors; do nothing if there are none.

        Raises:
            SpecError: at least one error was collected; several are raised as one
                :class:`SpecErrors`.
        """
        if self.found:
            raise one_or_many(self.found)


def one_or_many(errors: Sequence[SpecError]) -> SpecError:
    """Return one error for all ``errors``: the error itself if there is only one, otherwise a
    ``SpecErrors``. Repeated errors are dropped."""
    different = [*{str(error): error for error in errors}.values()]
    return different[0] if len(different) == 1 else SpecErrors(different)


def closest(value: object, allowed: Iterable[str]) -> str | None:
    """Return the allowed name that ``value`` most likely misspells, or None."""
    if not isinstance(value, str) or len(value) > 100:
        return None
    # Case is folded first: difflib finds no likeness between 'RELU' and 'relu'.
    by_folded = {name.lower(): name for name in allowed}
    folded = value.lower()
    if OTHER_WORDS.get(folded) in by_folded:
        return by_folded[OTHER_WORDS[folded]]
    matches = difflib.get_close_matches(folded, by_folded, n=1, cutoff=LIKENESS)
    return by_folded[matches[0]] if matches else None


def did_you_mean(value: object, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest allowed name, or "" if none is close.

    If ``value`` is a list of allowed names such as "a,b", return a text which says that only one
    name is accepted.
    """
    allowed = tuple(allowed)
    if isinstance(value, str) and "," in value and {*value.split(",")} <= {*allowed}:
        return "; only one is allowed here: run the command once for each"
    name = closest(value, allowed)
    return "" if name is None else f"; did you mean {name!r}?"


def unknown(what: str, value: object, known: Iterable[str], instead: str = "") -> UsageError:
    """Return the error "unknown WHAT VALUE", with the known names and the most similar name.
    ``what`` is a noun, e.g. "backend".

    If ``instead`` is not empty, the message says "give INSTEAD" and names no similar name.
    """
    names = tuple(known)
    hint = f"; give {instead}" if instead else did_you_mean(value, names)
    return UsageError(f"unknown {what} {value!r}{hint}{known_names(names, hint)}")


def known_names(names: Iterable[str], hint: str, command: str = "") -> str:
    """Return the text `` (known: a, b)`` for the end of a message about an unknown name.

    If the message has a ``hint`` and there are more than :data:`MOST_LISTED` names, the text names
    the ``command`` that lists all names.
    """
    all_names = tuple(names)
    if not hint or len(all_names) <= MOST_LISTED:
        return f" (known: {', '.join(all_names) or 'none'})"
    return f" ({command!r} lists all)" if command else ""


def check_known(what: str, value: object, known: Iterable[str]) -> None:
    """Check that ``value`` is one of the ``known`` names; ``what`` is the noun for the message.

    Raises:
        UsageError: the name is unknown.
    """
    names = tuple(known)
    if value not in names:
        raise unknown(what, value, names)


def several(count: int, what: str) -> str:
    """Return a count with the noun ``what``, e.g. ``1 cell`` or ``2 cells``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def shorten(text: str, limit: int = 60) -> str:
    """Return ``text`` on one line of at most ``limit`` characters, for use inside a message."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def with_trace(message: str, traceback: str) -> str:
    """Return a message for standard error, followed by ``traceback`` if it is not empty."""
    if not traceback:
        return message
    return f"{message}\nIts traceback:\n{indent(traceback.rstrip(), '  ')}"


def blame(error: BaseException, note: str) -> None:
    """Add ``note``, the name of the primitive that failed, to an exception, unless it already has
    such a note."""
    if not blamed(error):
        error.add_note(f"{_BLAME}{note}")


def blamed(error: BaseException) -> str:
    """Return the note about a failed primitive that :func:`blame` added to an error, or ""."""
    notes = getattr(error, "__notes__", ())
    blames = (n for n in notes if isinstance(n, str) and n.startswith(_BLAME))
    return next(blames, "")


def _file_order(error: SpecError) -> tuple[bool, Place]:
    return error.place is not None, error.place or Place("", 0, 0)
