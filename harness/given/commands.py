"""The command ``run``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.interrupts import stoppable
from harness.options import DEVICE, SIZE, SPECS, numbers, seed, timeout

Command = Callable[..., Any]
FILE = click.Path(path_type=Path)


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command("run")(guard(run))


@click.argument("spec")
@click.option("--backend", required=True, help="Name of a backend, or oracle: numpy in float64.")
@click.option("--weights", type=FILE, help="Parameters (.safetensors); initial ones if left out.")
@click.option(
    "--inputs", type=FILE, help="A batch (.npz): arrays NAME, and target.NAME and state.NAME."
)
@click.option("--want", multiple=True, help="outputs, loss or gradients; all if left out.")
@click.option("-o", "--output", type=FILE, help="File (.npz) to write the results to.")
@click.option("--dtype", default="float64", show_default=True, help="float64 or float32.")
@click.option("--path", default="native", show_default=True, help="native, equations or derived.")
@click.option("--phase", default="training", show_default=True, help="training or inference.")
@DEVICE
@SPECS
@SIZE
@click.option("--python", help="Run the backend in another environment.")
@timeout(120.0, "Seconds for the run.")
@seed("Of initial parameters.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def run(spec: str, **options: Any) -> None:
    """Run SPEC once on numbers of your own, and write what came of it. Nothing is judged.

    Exit code 0: done; 2: wrong usage or a wrong file; 3: the backend could not be run.
    """
    from harness.given.console import run_run

    options["sizes"] = numbers(options["sizes"])
    sys.exit(stoppable(partial(run_run, spec, options)))
