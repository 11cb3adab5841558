"""The command ``reduce``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checking.commands import ReplayOptions
from harness.command import shared
from harness.command.declared import HOW, option, takes
from harness.command.interrupts import stoppable
from harness.command.ranges import CELL_SECONDS, TIMEOUT

if TYPE_CHECKING:
    from harness.results.cell import CellResult
    from harness.worker.launch import Launch


@dataclass(init=False, repr=False, eq=False)
class ReduceOptions(ReplayOptions):
    """Options of ``reduce``."""

    output: Path | None = shared.output(
        "The new folder; FOLDER-reduced if left out.", kind="folder"
    )
    timeout: float = shared.timeout(60.0, "pass")
    search_timeout: float = option(
        CELL_SECONDS,
        "Seconds that the search may take; what was found by then is written.",
        section=HOW,
        allowed=TIMEOUT,
        shown=True,
    )


@takes(ReduceOptions)
def reduce(folder: Path, output: Path | None, backend: str | None, **given: Any) -> None:
    """Make the reproducer in FOLDER smaller for as long as it stays wrong, in a new folder.

    Exit code 0: done; 2: FOLDER holds no reproducer, or it agrees; 3: the backend could not be run.
    """
    from harness.checking.replay import run_reduce
    from harness.checking.request import Request
    from harness.upstream.bundle import Upstream

    def beside(launch: Launch, new: Path, result: CellResult) -> list[str]:
        name = launch.backend
        request = Request(
            pythons={name: launch.python}, environment={name: dict(launch.environment)}
        )
        with Upstream(request) as upstream:
            return upstream.write(new, result)

    sys.exit(stoppable(partial(run_reduce, folder, output, backend, given, beside)))
