"""The commands that look into a difference. What they need is imported when they are run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.interrupts import stoppable
from harness.options import (
    DEVICE,
    ENVIRONMENT,
    PYTHONS,
    SIZE,
    SPECS,
    numbers,
    pairs,
    seed,
    timeout,
    variables,
)

Command = Callable[..., Any]


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the commands to a group; ``guard`` makes a message of a user's error."""
    group.command("localise")(guard(localise))
    group.command("reduce")(guard(reduce))


@click.argument("spec")
@click.option("--backend", required=True, help="The backend that differs.")
@click.option("--against", help="Another backend, in place of the oracle.")
@click.option("--dtype", default="float32", show_default=True, help="float64 or float32.")
@click.option(
    "--path",
    default="native",
    show_default=True,
    type=click.Choice(["native", "equations", "derived"]),
    help="The framework's own layers, the equations, or these with the derived gradient.",
)
@DEVICE
@SPECS
@SIZE
@click.option("--check", "checks", multiple=True, help="Checks to run (patterns); all if left out.")
@PYTHONS
@ENVIRONMENT
@timeout(120.0, "Seconds for the search.")
@seed("Of the numbers to compare with.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def localise(spec: str, **options: Any) -> None:
    """Look for the cause of a difference: SPEC on one backend, against the oracle or another.

    The right value is fed in where a value, a gradient or a step is first wrong: what then agrees
    was wrong because of it. Exit code 0: all agrees; 1: something differs, and the cause is told;
    2: wrong usage or a wrong spec; 3: a backend could not be run.
    """
    from harness.check.localising import run_localise
    from harness.check.request import Request

    request = Request(
        specs=(spec,),
        backends=(options["backend"],),
        dtypes=(options["dtype"],),
        paths=(options["path"],),
        device=options["device"],
        folders=tuple[Path, ...](options["folders"]),
        sizes=numbers(options["sizes"]),
        pythons=pairs("--python", options["pythons"]),
        environment=variables(options["environment"]),
        timeout=options["timeout"],
        checks=tuple(options["checks"]) or ("*",),
        seed=options["seed"],
    )
    sys.exit(stoppable(partial(run_localise, request, options["against"], options["as_json"])))


@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The new folder; FOLDER-reduced if left out.",
)
@click.option("--backend", help="Reduce on another backend.")
@timeout(120.0, "Seconds for the search; what was found by then is written.")
def reduce(folder: Path, output: Path | None, backend: str | None, timeout: float) -> None:
    """Make the reproducer in FOLDER as small as it stays wrong, in a new folder.

    Exit code 0: done; 2: FOLDER holds no reproducer, or it agrees; 3: the backend could not be run.
    """
    from harness.check.reducing import run_reduce

    sys.exit(stoppable(partial(run_reduce, folder, output, backend, timeout)))
