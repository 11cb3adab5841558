"""Options of ``differences``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass

from harness.command import shared
from harness.command.declared import option


@dataclass(init=False, repr=False, eq=False)
class DifferencesOptions:
    """Show the defaults in which frameworks differ, and what to set so that they agree.

    LAYER is a layer, function, loss or optimizer, such as gru, softmax or adam. Default: all.

    The exit code is 0 for success, 2 for wrong usage. With --run, it is 1 if an installed framework
    does not behave as shown, and 3 if a framework could not run.
    """

    layer: str | None = option(None, "Layer, loss, ...", word="layer", kind="definition")
    between: tuple[str, str] | None = option(
        None,
        "Show only differences between two frameworks, such as torch keras.",
        kind="framework",
        metavar="A B",
    )
    run: bool = option(False, "Measure the differences on the installed frameworks.")
    as_json: bool = shared.as_json()
    print_markdown: bool = shared.print_markdown()
