"""The commands ``compare``, ``upgrade`` and ``merge``. What they need is imported when they are
run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.command import options as shared
from harness.command.interrupts import stoppable
from harness.command.options import FILE, JSON, MARKDOWN, WordList, listed, number
from harness.command.ranges import ROUNDS
from harness.timing.commands import SHARE, share

Command = Callable[..., Any]


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the commands to a group; ``guard`` makes a message of a user's error."""
    group.command()(guard(compare))
    group.command()(guard(upgrade))
    group.command()(guard(merge))


@click.argument("old", type=FILE)
@click.argument("new", type=FILE, required=False)
@click.option(
    "--between",
    nargs=2,
    type=WordList("backend"),
    metavar="A B",
    help="Two columns of the one file, such as torch@2.14.1 torch@2.15.0.",
)
@SHARE
@JSON
@MARKDOWN
def compare(old: Path, new: Path | None, **options: Any) -> None:
    """Show what changed from OLD to NEW: two files of 'check --records', or of 'bench --records'.

    With --between, what changes from one column of OLD to another: two versions of a framework.

    They may be of other versions and machines; what differs there is told first. Worse is what is
    slower beyond the threshold and the noise, less accurate than rounding explains, of a graver
    verdict, or gone.

    Exit code 0: nothing is worse; 1: something is; 2: the files cannot be read or compared.
    """
    from harness.comparison.console import run_compare

    given = {**options, "threshold": share(options["threshold"])}
    sys.exit(stoppable(partial(run_compare, old, new, given)))


@click.argument("old", type=WordList("backend"))
@click.argument("new", type=WordList("backend"))
@shared.specs
@listed("--want", kind="want", help="numbers or speed; both if left out.")
@click.option("--quick", is_flag=True, help="Three models, float32, the check 'values'.")
@shared.DEVICE
@click.option(
    "--rounds",
    type=number(ROUNDS),
    default=5,
    show_default=True,
    help="Rounds of interleaved measurement.",
)
@SHARE
@shared.SPECS
@JSON
def upgrade(old: str, new: str, specs: tuple[str, ...], **options: Any) -> None:
    """Tell whether going from OLD to NEW changes a number or a speed: two versions of a framework.

    They are columns of --backend, such as torch==2.14.1 and torch==2.15.0. Environments that are
    missing are made after a question at a terminal, or by 'harness env'.
    If no SPEC is given, the command checks and times Lesson 6: the twelve small character models of
    fast.ai's notebook that ship as lesson6/NAME

    Exit code 0: nothing is worse; 1: something is; 2: wrong usage or a wrong spec; 3: one of them
    could not be run.
    """
    from harness.comparison.upgrade import run_upgrade

    given = {**options, "threshold": share(options["threshold"])}
    sys.exit(stoppable(partial(run_upgrade, (old, new), specs, given)))


@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option("-o", "--output", required=True, type=FILE, help="File to write; replaced.")
@JSON
def merge(files: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Join FILEs of several shards or machines: of 'check --records', or of 'bench --records'.

    A cell that several files have from the same machine and version is kept once; what comes from
    different ones stays apart. Shards and cells that are missing are told.

    Exit code 0: all is there; 1: files contradict each other, and both sides are kept; 2: the files
    cannot be read or joined; 3: cells of the plan are missing.
    """
    from harness.comparison.merging import run_merge

    sys.exit(stoppable(partial(run_merge, files, output, as_json)))
