"""The command ``differences``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from harness.command.interrupts import stoppable
from harness.command.options import JSON, MARKDOWN, WordList

Command = Callable[..., Any]


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command()(guard(differences))


@click.argument("layer", required=False, type=WordList("definition"))
@click.option(
    "--between",
    nargs=2,
    type=WordList("framework"),
    metavar="A B",
    help="Only where these two differ, such as torch keras.",
)
@click.option("--run", is_flag=True, help="Measure it on the versions that are installed.")
@JSON
@MARKDOWN
def differences(layer: str | None, **options: Any) -> None:
    """Show where the frameworks' defaults differ, and what to set so that they agree.

    LAYER is a layer, a function, a loss or an optimizer, such as gru, softmax or adam; all if left
    out.

    Exit code 0: shown, and as written where --run measures it; 1: an installed version does
    something else than is written; 2: wrong usage; 3: a framework could not be measured.
    """
    from harness.defaults.console import run_differences

    sys.exit(stoppable(partial(run_differences, layer, options)))
