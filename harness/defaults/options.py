"""Options of ``differences``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass

from harness.command import shared
from harness.command.declared import option


@dataclass(init=False, repr=False, eq=False)
class DifferencesOptions:
    """Show where the frameworks' defaults differ, and what to set so that they agree.

    LAYER is a layer, a function, a loss or an optimizer, such as gru, softmax or adam; all if left
    out.

    Exit code 0: shown, and as written where --run measures it; 1: an installed version does
    something else than is written; 2: wrong usage; 3: a framework could not be measured.
    """

    layer: str | None = option(None, "Layer, loss, ...", word="layer", kind="definition")
    between: tuple[str, str] | None = option(
        None, "Only where these two differ, such as torch keras.", kind="framework", metavar="A B"
    )
    run: bool = option(False, "Measure it on the versions that are installed.")
    as_json: bool = shared.as_json()
    print_markdown: bool = shared.print_markdown()
