"""Options of ``demo``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass

from harness.command import shared
from harness.command.declared import option


@dataclass(init=False, repr=False, eq=False)
class DemoOptions:
    """Check a small GRU on numpy and one framework, in seconds.

    With --break, the command plants a fault, and writes a reproducer to the folder harness-demo.

    The exit code is 0 if all cells agree, 1 if a cell differs (as with --break), and 3 if a backend
    could not run.
    """

    broken: bool = option(False, "Plant a fault, and show its diagnosis.", word="--break")
    backend: str | None = option(
        None, "Framework to check. Default: the first installed framework.", kind="backend"
    )
    as_json: bool = shared.as_json()
