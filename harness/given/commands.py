"""The command ``run``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from harness.command.declared import takes
from harness.command.interrupts import stoppable
from harness.command.options import numbers, process_of
from harness.given.options import PassOptions


@takes(PassOptions)
def run(spec: str, **given: Any) -> None:
    """Run SPEC once on numbers of your own, and write what came of it. Nothing is judged.

    Exit code 0: done; 2: wrong usage or a wrong file; 3: the backend could not be run.
    """
    from harness.given.console import run_run

    name, _, own = given["backend"].partition("=")
    python, environment = process_of(given, name, own)
    given = {
        **given,
        "sizes": numbers(given["sizes"]),
        "python": python,
        "environment": environment,
    }
    sys.exit(stoppable(partial(run_run, spec, given)))
