"""The command ``run``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from harness.command import options
from harness.command.interrupts import stoppable
from harness.command.options import FILE, WordList, listed, numbers, process_of, seed, timeout

Command = Callable[..., Any]


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command("run")(guard(run))


@options.spec
@click.option(
    "--backend",
    required=True,
    type=WordList("backend"),
    help="The backend that does it, or oracle: numpy in float64.",
)
@click.option("--weights", type=FILE, help="Parameters (.safetensors); initial ones if left out.")
@click.option(
    "--inputs", type=FILE, help="A batch (.npz): arrays NAME, and target.NAME and state.NAME."
)
@listed("--want", kind="want", help="outputs, loss or gradients; all if left out.")
@click.option("-o", "--output", type=FILE, help="File (.npz) to write the results to.")
@options.dtype("float64", "float32")
@options.path("native")
@click.option(
    "--phase",
    default="training",
    show_default=True,
    type=WordList("phase"),
    help="training or inference.",
)
@options.DEVICE
@options.SPECS
@options.SIZE
@options.PYTHONS
@options.ENVIRONMENT
@timeout(120.0, "pass")
@seed("Seed of the initial parameters.")
@options.JSON
def run(spec: str, **given: Any) -> None:
    """Run SPEC once on numbers of your own, and write what came of it. Nothing is judged.

    Exit code 0: done; 2: wrong usage or a wrong file; 3: the backend could not be run.
    """
    from harness.given.console import run_run

    given["sizes"] = numbers(given["sizes"])
    name, _, own = given["backend"].partition("=")
    given["python"], given["environment"] = process_of(given, name, own)
    sys.exit(stoppable(partial(run_run, spec, given)))
