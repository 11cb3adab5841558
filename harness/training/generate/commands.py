"""The command ``generate``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from harness.command import options
from harness.command.interrupts import stoppable
from harness.command.options import FILE, listed, number, seed
from harness.command.ranges import LENGTH, TEMPERATURE, TOP_K

Command = Callable[..., Any]


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command()(guard(generate))


@options.spec
@listed(
    "--backend",
    "backends",
    kind="backend",
    required=True,
    help="Backends that write; the texts of several are compared.",
)
@click.option(
    "--weights", required=True, type=FILE, help="File of weights that train or import wrote."
)
@click.option("--prompt", required=True, help="The text to continue.")
@click.option(
    "--length", type=number(LENGTH), default=200, show_default=True, help="Characters to write."
)
@click.option(
    "--temperature",
    type=number(TEMPERATURE),
    default=0.0,
    show_default=True,
    help="How freely to choose; at 0 the likeliest character is taken each time.",
)
@click.option(
    "--top-k",
    type=number(TOP_K),
    default=0,
    help="Choose among this many characters; among all if left out.",
)
@click.option(
    "--no-cache",
    is_flag=True,
    help="Read the whole window anew for each character, and keep nothing of the last pass.",
)
@seed("Seed of the choice.")
@options.DEVICE
@options.dtype("float64", "float32, bfloat16, float16 and tf32")
@options.path("native")
@options.PYTHONS
@options.ENVIRONMENT
@options.JSON
@options.SPECS
def generate(spec: str, backends: tuple[str, ...], **given: Any) -> None:
    """Continue a prompt with SPEC and weights that were trained.

    Greedy unless a temperature is given; then the same text comes from every backend, and several
    --backend prove it.

    Exit code 0: done; 1: the backends' texts differ; 2: wrong usage or a wrong file; 3: a backend
    failed.
    """
    from harness.environments.columns import of_options
    from harness.training.generate.console import run_generate
    from harness.training.generate.request import GenerateRequest

    columns = of_options(backends, given["pythons"])
    fields = ("weights", "prompt", "length", "temperature", "top_k", "seed", "device", "dtype")
    request = GenerateRequest(
        spec,
        columns.names,
        **{name: given[name] for name in (*fields, "path")},
        cache=not given["no_cache"],
        folders=tuple(given["folders"]),
        pythons=columns.pythons,
        environments=options.variables(given["environment"], lambda: columns.names),
    )
    sys.exit(stoppable(partial(run_generate, request, given["as_json"])))
