"""The command ``differences``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.command import shared
from harness.command.declared import option, takes
from harness.command.interrupts import stoppable


@dataclass(init=False, repr=False, eq=False)
class DifferencesOptions:
    """Options of ``differences``."""

    layer: str | None = option(None, "Layer, loss, ...", word="layer", kind="definition")
    between: tuple[str, str] | None = option(
        None, "Only where these two differ, such as torch keras.", kind="framework", metavar="A B"
    )
    run: bool = option(False, "Measure it on the versions that are installed.")
    as_json: bool = shared.as_json()
    markdown: bool = shared.markdown()


@takes(DifferencesOptions)
def differences(layer: str | None, **options: Any) -> None:
    """Show where the frameworks' defaults differ, and what to set so that they agree.

    LAYER is a layer, a function, a loss or an optimizer, such as gru, softmax or adam; all if left
    out.

    Exit code 0: shown, and as written where --run measures it; 1: an installed version does
    something else than is written; 2: wrong usage; 3: a framework could not be measured.
    """
    from harness.defaults.console import run_differences

    sys.exit(stoppable(partial(run_differences, layer, options)))
