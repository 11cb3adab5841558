"""Ranges of numbers in options and requests. Each range is declared once, for the command line and
for Python.

The command line reads numbers through :func:`harness.command.options.number`; numbers from Python
are checked with :meth:`Range.check`. ``docs/security.md`` lists the ranges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError, shorten


@dataclass(frozen=True)
class Range:
    """A range of numbers from ``least`` to ``most``, both included. With ``whole``, only whole
    numbers are in the range.

    For error messages, ``what`` names the number (e.g. "a seed") and ``allowed`` describes it (e.g.
    "a whole number").
    """

    what: str
    allowed: str
    least: float
    most: float
    whole: bool = True

    def check(self, value: Any, what: str = "") -> Any:
        """Return ``value`` if it is in the range; otherwise raise :class:`UsageError`. ``what``
        names the value in the error message."""
        kinds = (int,) if self.whole else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        # NaN fails every comparison, so test for "in the range", not for "out of range".
        if not is_number or not self.least <= value <= self.most:
            raise self._refused(value, what)
        return value

    def read(self, text: str, what: str = "") -> Any:
        """Parse a number; raise :class:`UsageError` if the text is not a number or is out of range.
        ``what`` names the value in the error message."""
        try:
            if not text.isascii() or "_" in text:
                raise ValueError
            number: int | float = int(text) if self.whole else float(text)
        except ValueError:
            raise self._refused(text, what) from None
        if not self.least <= number <= self.most:
            raise self._refused(text, what)
        return number

    def _refused(self, value: Any, what: str) -> UsageError:
        try:
            value_text = shorten(repr(value))
        except ValueError:  # Python refuses to print integers of more than some thousand digits
            value_text = "an integer with too many digits to show"
        return UsageError(
            f"{what or self.what} must be {self.allowed}, found {value_text} "
            f"(allowed: {_number(self.least)} to {_number(self.most)})"
        )


def _number(value: float) -> str:
    if value == BELOW_1:  # would be shown as 1
        return "below 1"
    whole = value == math.floor(value)
    return f"{int(value):,}" if whole and abs(value) < 1e18 else f"{value:g}"


# The default seconds of a cell or pass, the default seconds of a call in a long run, and the
# default number of rounds.
CELL_SECONDS = 120.0
CALL_SECONDS = 600.0
USUAL_ROUNDS = 5
MOST_INT32 = 2**31 - 1
YEAR = 366 * 24 * 3600.0
BELOW_1 = math.nextafter(1, 0)

SEED = Range("a seed", "a whole number", 0, 2**32 - 1)
TIMEOUT = Range("a timeout", "a positive number of seconds", 0.001, YEAR, whole=False)
MEMORY_MIB = Range("a memory limit", "a positive size in MiB", 1, 2**30)
MEMORY = Range("a memory limit", "a positive size in bytes", 1, 2**50)
THREADS = Range("a number of threads", "a whole number", 0, 4096)
REPEAT = Range("a number of repetitions", "a whole number", 0, 1_000_000)
CASES = Range("a number of cases", "a whole number", 0, MOST_INT32)
MINUTES = Range("a number of minutes", "a positive number", 0.001, YEAR / 60, whole=False)
JOBS = Range("a number of jobs", "a whole number", 0, 4096)
SIZES = Range("a size", "a positive whole number", 1, MOST_INT32)
BATCH = Range("a batch size", "a positive whole number", 1, MOST_INT32)
TIME = Range("a sequence length", "a positive whole number", 1, MOST_INT32)
ROUNDS = Range("the number of rounds", "at least 1", 1, 10_000)
# The header of the weights contains the history of each epoch, and its size is limited.
EPOCHS = Range("a number of epochs", "a positive whole number", 1, 20_000)
EVERY = Range("a number of steps", "a positive whole number", 1, MOST_INT32)
HELD_OUT = Range("the held-out share", "a share", 0.0, BELOW_1, whole=False)
LENGTH = Range("a length", "a positive whole number", 1, 10_000_000)
TEMPERATURE = Range("a temperature", "a number", 0.0, 1e6, whole=False)
TOP_K = Range("--top-k", "a whole number", 0, MOST_INT32)
THRESHOLD = Range("a threshold", "a share", 0.0, 1e6, whole=False)
