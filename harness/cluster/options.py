"""Options of the commands that many machines can share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from harness.command.options import WordList


def machines(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--shard`` and ``--on``."""
    on = click.option(
        "--on",
        metavar="ray[://HOST:PORT]",
        type=WordList("cluster"),
        help="Run on the nodes of a Ray cluster: that of this machine, or the one whose head has "
        "the address.",
    )
    shard = click.option(
        "--shard", metavar="NUMBER/COUNT", help="Take a part of the run: 2/4 is the second of four."
    )
    return shard(on(function))
