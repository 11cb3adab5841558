"""Errors meant for a person: what was found, where, and what to write instead."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

# Largest number of known names listed beside a guess: a longer list hides the guess.
MOST_LISTED = 10
# Names that other programs use for names of the harness.
OTHER_WORDS = {
    **dict.fromkeys(("fp64", "f64", "double"), "float64"),
    **dict.fromkeys(("fp32", "f32", "single"), "float32"),
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    "bf16": "bfloat16",
    **dict.fromkeys(("gpu", "nvidia"), "cuda"),
    "gpu:0": "cuda:0",
}
# Smallest similarity of two names for a guess, from 0 to 1: 'sdg' suggests 'sgd', but 'nonsense'
# does not suggest 'dense'.
LIKENESS = 0.65
# Largest number of errors shown for one file; the others are counted.
MOST_ERRORS = 20
# Start of the note that names the cause of an error; frameworks add notes of their own.
_BLAME = "in the primitive "


@dataclass(frozen=True, order=True)
class Place:
    """A position in a file; lines and columns count from 1, columns in characters.

    A place without a line is the whole file, which may be missing.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return self.file if not self.line else f"{self.file}:{self.line}:{self.column}"


class HarnessError(Exception):
    """Base of every error that a user can cause and fix; shown without a traceback.

    ``exit_code`` is the exit code of a command that ends with the error.
    """

    exit_code = 2


class CouldNotRun(HarnessError):
    """A failure of a backend, or of a format's process; ``traceback`` is its traceback, or ""."""

    exit_code = 3

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class UsageError(HarnessError):
    """An impossible request on the command line or in an argument of a public function."""


class SpecError(HarnessError):
    """An error in a spec file: ``message`` says what is wrong, ``place`` where (None: no file)."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message, place)
        self.message = message
        self.place = place

    def __str__(self) -> str:
        return self.message if self.place is None else f"{self.place}: {self.message}"


@contextmanager
def placed(place: Place) -> Iterator[None]:
    """Add ``place`` to a :class:`SpecError` of the block that has no place."""
    try:
        yield
    except SpecError as error:
        if error.place is not None or isinstance(error, SpecErrors):
            raise
        raise SpecError(error.message, place) from None


class SpecErrors(SpecError):
    """Several errors of one file, reported together; ``errors`` holds them in file order."""

    def __init__(self, errors: Sequence[SpecError]) -> None:
        if not errors:
            raise ValueError("SpecErrors needs at least one error")
        self.errors = tuple(sorted(errors, key=_file_order))
        super().__init__(self.errors[0].message, self.errors[0].place)
        self.args = (self.errors,)

    def __str__(self) -> str:
        more = len(self.errors) - MOST_ERRORS
        shown = [
            *map(str, self.errors[:MOST_ERRORS]),
            *([f"and {more:,} more"] if more > 0 else []),
        ]
        return "\n".join(shown)


class ErrorList:
    """Errors of independent parts, collected to be reported together."""

    def __init__(self) -> None:
        self.found: list[SpecError] = []

    @contextmanager
    def part(self) -> Iterator[None]:
        """Keep a :class:`SpecError` of the block and continue after the block."""
        try:
            yield
        except SpecErrors as several_:
            self.found += several_.errors
        except SpecError as error:
            self.found.append(error)

    def end(self) -> None:
        """Raise the errors of all parts, if there are any.

        Raises:
            SpecError: a part failed; several errors are raised as one :class:`SpecErrors`.
        """
        if self.found:
            raise one_or_many(self.found)


def one_or_many(errors: Sequence[SpecError]) -> SpecError:
    """Return a single error itself, or several as one ``SpecErrors``; drop repeated errors."""
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

    If ``value`` is a comma-separated list of allowed names, the hint says that only one is taken.
    """
    allowed = tuple(allowed)
    if isinstance(value, str) and "," in value and {*value.split(",")} <= {*allowed}:
        return "; one is taken here: give each its own run"
    name = closest(value, allowed)
    return "" if name is None else f"; did you mean {name!r}?"


def unknown(what: str, value: object, known: Iterable[str], instead: str = "") -> UsageError:
    """Return the error for an unknown ``value``; ``instead`` replaces the spelling guess."""
    names = tuple(known)
    hint = f"; give {instead}" if instead else did_you_mean(value, names)
    return UsageError(f"unknown {what} {value!r}{hint}{known_names(names, hint)}")


def known_names(names: Iterable[str], hint: str, command: str = "") -> str:
    """Return `` (known: a, b)``; after a ``hint``, name ``command`` instead of a long list."""
    listed = tuple(names)
    if not hint or len(listed) <= MOST_LISTED:
        return f" (known: {', '.join(listed) or 'none'})"
    return f" ({command!r} has all)" if command else ""


def check_known(what: str, value: object, known: Iterable[str]) -> None:
    """Check that ``value`` is a known name of a ``what``.

    Raises:
        UsageError: the name is unknown.
    """
    names = tuple(known)
    if value not in names:
        raise unknown(what, value, names)


def several(count: int, what: str) -> str:
    """Return a count with its noun: ``1 cell``, ``2 cells``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def shorten(text: str, limit: int = 60) -> str:
    """Return ``text`` on one line of at most ``limit`` characters, for use inside a message."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def blame(error: BaseException, note: str) -> None:
    """Add a note with the cause to an error, unless it has one already."""
    if not blamed(error):
        error.add_note(f"{_BLAME}{note}")


def blamed(error: BaseException) -> str:
    """Return the note that :func:`blame` added to an error, or ""."""
    notes = getattr(error, "__notes__", ())
    found = (n for n in notes if isinstance(n, str) and n.startswith(_BLAME))
    return next(found, "")


def _file_order(error: SpecError) -> tuple[bool, Place]:
    return error.place is not None, error.place or Place("", 0, 0)
