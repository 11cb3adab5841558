"""The command ``demo``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial

from harness.command import shared
from harness.command.declared import option, takes
from harness.command.interrupts import stoppable


@dataclass(init=False, repr=False, eq=False)
class DemoOptions:
    """Options of ``demo``."""

    broken: bool = option(False, "Plant a fault, and see how it is reported.", word="--break")
    backend: str | None = option(
        None, "Framework to check; the first that is installed if left out.", kind="backend"
    )
    as_json: bool = shared.as_json()


@takes(DemoOptions)
def demo(broken: bool, backend: str | None, as_json: bool) -> None:
    """Check a small GRU on numpy and one framework, in seconds.

    With --break, a reproducer of the planted fault is written to the folder harness-demo.

    Exit code 0: all agree; 1: something differs, as with --break; 3: a backend could not be run.
    """
    from harness.demo.console import run_demo

    sys.exit(stoppable(partial(run_demo, broken, backend, as_json)))
