"""The command ``bench``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from harness.command.declared import takes
from harness.command.interrupts import stoppable
from harness.command.ranges import THRESHOLD
from harness.errors import UsageError
from harness.timing.options import BenchOptions


@takes(BenchOptions)
def bench(**given: Any) -> None:
    """Time backends side by side: all that are installed, on all of Lesson 6, if left out.

    Lesson 6 is the twelve small character models of fast.ai's notebook that ship as lesson6/NAME

    A cell whose results differ from the oracle's, or whose backend does not prove that it did the
    work, gets no speed. A quick look: 'harness bench SPEC --path native --rounds 2'.

    Exit code 0: all have a speed; 1: one was refused, or --baseline found a regression; 2: wrong
    usage or a wrong spec; 3: a backend could not be run.
    """
    from harness.timing.console import run_bench

    request = request_of(given)
    given = {**given, "threshold": share(given["threshold"])}
    sys.exit(stoppable(partial(run_bench, request, sys.argv[1:], given)))


def request_of(given: Mapping[str, Any]) -> Any:
    """The request that options stand for; :class:`UsageError` for one that cannot be."""
    from harness.environments.columns import of_command
    from harness.timing.request import BenchRequest

    for name in given["specs"] if given["as_json"] else ():
        if name.endswith(".json"):
            raise UsageError(
                f"--json prints to standard output; to keep the results, give --records {name}"
            )
    return BenchRequest.of(of_command(BenchOptions, given))


def share(text: str) -> float:
    """A share as a number, from ``10%`` or ``0.1``.

    Raises:
        UsageError: it is none, or outside of what is allowed.
    """
    percent = text.endswith("%")
    try:
        found = float(THRESHOLD.read(text.removesuffix("%"))) / (100 if percent else 1)
    except UsageError as error:
        raise UsageError(
            f"--threshold takes a share such as 10% or 0.1, found {text!r}: {error}"
        ) from None
    if found >= 1 and not percent:
        raise UsageError(
            f"--threshold takes a share such as 10% or 0.1, found {text!r}: write {text}% for "
            f"{text} percent (a share without % is below 1)"
        )
    return found
