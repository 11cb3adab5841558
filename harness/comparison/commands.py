"""The command ``compare``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.bench.commands import SHARE, share
from harness.interrupts import stoppable
from harness.options import FILE, JSON, MARKDOWN

Command = Callable[..., Any]


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command()(guard(compare))


@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@SHARE
@JSON
@MARKDOWN
def compare(old: Path, new: Path, **options: Any) -> None:
    """Show what changed from OLD to NEW: two files of 'check --records', or of 'bench --records'.

    They may be of other versions and machines; what differs there is told first. Worse is what is
    slower beyond the threshold and the noise, less accurate than rounding explains, of a graver
    verdict, or gone.

    Exit code 0: nothing is worse; 1: something is; 2: the files cannot be read or compared.
    """
    from harness.comparison.console import run_compare

    given = {**options, "threshold": share(options["threshold"])}
    sys.exit(stoppable(partial(run_compare, old, new, given)))
