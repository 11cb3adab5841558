"""Errors that are meant for a person: what was found, where, and what to write instead."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

# Names beside a guess in a message: more hide it.
MOST_LISTED = 10
# Words of other programs for names that stand in lists here.
OTHER_WORDS = {
    **dict.fromkeys(("fp64", "f64", "double"), "float64"),
    **dict.fromkeys(("fp32", "f32", "single"), "float32"),
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    "bf16": "bfloat16",
    **dict.fromkeys(("gpu", "nvidia"), "cuda"),
    "gpu:0": "cuda:0",
}
# How much of two names must be the same for a guess, from 0 to 1: 'sdg' is meant to be 'sgd', and
# 'nonsense' is not 'dense'.
LIKENESS = 0.65
# Errors of one file that are shown; the others are counted.
MOST_ERRORS = 20
# How a note begins that tells what an error came from: other notes are the frameworks' own.
_BLAME = "in the primitive "


@dataclass(frozen=True, order=True)
class Place:
    """A position in a file; lines and columns count from 1, columns in characters.

    Without a line it is the file as a whole, which may not even be there.
    """

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return self.file if not self.line else f"{self.file}:{self.line}:{self.column}"


class HarnessError(Exception):
    """Base of every error that a user can cause and mend; shown without a traceback.

    ``exit_code`` is that of a command that ends with the error.
    """

    exit_code = 2


class CouldNotRun(HarnessError):
    """A backend, or the process of a format, failed; ``traceback`` is its own, "" if none."""

    exit_code = 3

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class UsageError(HarnessError):
    """The command line, or an argument of a public function, asks for something impossible."""


class SpecError(HarnessError):
    """A spec file is wrong: ``message`` says how, ``place`` where (None: no file is at hand)."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message, place)
        self.message = message
        self.place = place

    def __str__(self) -> str:
        return self.message if self.place is None else f"{self.place}: {self.message}"


@contextmanager
def placed(place: Place) -> Iterator[None]:
    """Give a place to the :class:`SpecError` of the block, if it has none."""
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
    """Errors of parts that do not depend on each other, to be reported together."""

    def __init__(self) -> None:
        self.found: list[SpecError] = []

    @contextmanager
    def part(self) -> Iterator[None]:
        """Keep the :class:`SpecError` of the block, and go on behind it."""
        try:
            yield
        except SpecErrors as several_:
            self.found += several_.errors
        except SpecError as error:
            self.found.append(error)

    def end(self) -> None:
        """Check that no part has failed.

        Raises:
            SpecError: one has; of several, all their errors.
        """
        if self.found:
            raise one_or_many(self.found)


def one_or_many(errors: Sequence[SpecError]) -> SpecError:
    """The only error itself, or all of them as one ``SpecErrors``."""
    return errors[0] if len(errors) == 1 else SpecErrors(errors)


def closest(value: object, allowed: Iterable[str]) -> str | None:
    """The allowed name that ``value`` is most likely a misspelling of, if any."""
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

    Where several allowed names stand in a row with commas, the hint is that one is taken.
    """
    allowed = tuple(allowed)
    if isinstance(value, str) and "," in value and {*value.split(",")} <= {*allowed}:
        return "; one is taken here: give each its own run"
    name = closest(value, allowed)
    return "" if name is None else f"; did you mean {name!r}?"


def unknown(what: str, value: object, known: Iterable[str], instead: str = "") -> UsageError:
    """The error that says ``value`` is not a name of a ``what``, and which names are; ``instead``
    is what to give, where that is no misspelling."""
    names = tuple(known)
    hint = f"; give {instead}" if instead else did_you_mean(value, names)
    return UsageError(f"unknown {what} {value!r}{hint}{known_names(names, hint)}")


def known_names(names: Iterable[str], hint: str, command: str = "") -> str:
    """Return `` (known: a, b)``; of more names than stand beside a ``hint``, the ``command`` that
    lists them, if there is one."""
    listed = tuple(names)
    if not hint or len(listed) <= MOST_LISTED:
        return f" (known: {', '.join(listed) or 'none'})"
    return f" ({command!r} has all)" if command else ""


def check_known(what: str, value: object, known: Iterable[str]) -> None:
    """Check that ``value`` is one of the names of a ``what``.

    Raises:
        UsageError: it is not.
    """
    names = tuple(known)
    if value not in names:
        raise unknown(what, value, names)


def several(count: int, what: str) -> str:
    """``1 cell``, ``2 cells``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def shorten(text: str, limit: int = 60) -> str:
    """Return ``text`` on one line of at most ``limit`` characters, for use inside a message."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def blame(error: BaseException, note: str) -> None:
    """Have an error say what it came from, beside its own message; the first word stands."""
    if not blamed(error):
        error.add_note(f"{_BLAME}{note}")


def blamed(error: BaseException) -> str:
    """The note that :func:`blame` has left in an error, "" if none."""
    notes = getattr(error, "__notes__", ())
    found = (n for n in notes if isinstance(n, str) and n.startswith(_BLAME))
    return next(found, "")


def _file_order(error: SpecError) -> tuple[bool, Place]:
    return error.place is not None, error.place or Place("", 0, 0)
