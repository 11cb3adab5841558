"""The command ``generate``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.interrupts import stoppable
from harness.options import DEVICE, OWN_ENVIRONMENT, SPECS, number, pairs, seed
from harness.ranges import LENGTH, TEMPERATURE, TOP_K

Command = Callable[..., Any]


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command()(guard(generate))


@click.argument("spec")
@click.option(
    "--backend", "backends", multiple=True, required=True, help="Of several, texts are compared."
)
@click.option(
    "--weights", required=True, type=click.Path(path_type=Path), help="As 'harness train' keeps."
)
@click.option("--prompt", required=True, help="The text to go on from.")
@click.option(
    "--length", type=number(LENGTH), default=200, show_default=True, help="Characters to write."
)
@click.option(
    "--temperature",
    type=number(TEMPERATURE),
    default=0.0,
    show_default=True,
    help="0 takes the likeliest each time.",
)
@click.option(
    "--top-k",
    type=number(TOP_K),
    default=0,
    help="Choose among so many; among all if left out.",
)
@seed("Of the choice.")
@DEVICE
@click.option("--dtype", default="float64", show_default=True, help="What to compute in.")
@click.option(
    "--path", default="native", show_default=True, help="The framework's layers, or equations."
)
@OWN_ENVIRONMENT
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@SPECS
def generate(spec: str, backends: tuple[str, ...], **options: Any) -> None:
    """Write on from a prompt with SPEC and weights that were trained.

    Greedy unless a temperature is given; then the same text comes from every backend, and several
    --backend prove it.

    Exit code 0: done; 1: the backends' texts part; 2: wrong usage or a wrong file; 3: a backend
    failed.
    """
    from harness.runtime.plugins import choose_backends
    from harness.train.generate.console import run_generate
    from harness.train.generate.writing import GenerateRequest

    names = ("weights", "prompt", "length", "temperature", "top_k", "seed", "device", "dtype")
    request = GenerateRequest(
        spec,
        tuple(choose_backends(backends)),
        **{name: options[name] for name in (*names, "path")},
        folders=tuple(options["folders"]),
        environment=pairs("--env", options["env"]),
    )
    sys.exit(stoppable(partial(run_generate, request, options["as_json"])))
