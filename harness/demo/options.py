"""Options of ``demo``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass

from harness.command import shared
from harness.command.declared import option


@dataclass(init=False, repr=False, eq=False)
class DemoOptions:
    """Check a small GRU on numpy and one framework, in seconds.

    With --break, a reproducer of the planted fault is written to the folder harness-demo.

    Exit code 0: all agree; 1: something differs, as with --break; 3: a backend could not be run.
    """

    broken: bool = option(False, "Plant a fault, and see how it is reported.", word="--break")
    backend: str | None = option(
        None, "Framework to check; the first that is installed if left out.", kind="backend"
    )
    as_json: bool = shared.as_json()
