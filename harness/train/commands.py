"""The command ``train``. What it needs is imported when it is run."""

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
    OWN_ENVIRONMENT,
    SIZE,
    SPECS,
    number,
    numbers,
    pairs,
    seed,
    timeout,
)
from harness.ranges import BATCH, EPOCHS, EVERY, HELD_OUT, THREADS

Command = Callable[..., Any]
FILE = click.Path(path_type=Path)


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command()(guard(train))


@click.argument("spec")
@click.option("--backend", required=True, help="Backend to train on.")
@click.option(
    "--text",
    default="builtin",
    show_default=True,
    help="builtin (Python's own documentation), nietzsche (the notebook's), or a file.",
)
@click.option("--encoding", default="utf-8", show_default=True, help="Of a file.")
@click.option("--epochs", type=number(EPOCHS), help="The spec's own phases if left out.")
@click.option("--batch", type=number(BATCH), help="Rows of a step; the spec's own if left out.")
@click.option("--weights", type=FILE, help="Keep the weights here, and checkpoints beside.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint, if there is one.")
@click.option(
    "--no-proof",
    is_flag=True,
    help="Do not hold the first steps against the oracle.",
)
@click.option("--force", is_flag=True, help="Begin anew in place of weights that are there.")
@click.option(
    "--every",
    type=number(EVERY),
    default=1000,
    show_default=True,
    help="Steps between checkpoints.",
)
@click.option(
    "--held-out",
    type=number(HELD_OUT),
    default=0.05,
    show_default=True,
    help="Share of the text to test on, its end.",
)
@DEVICE
@click.option("--dtype", default="float32", show_default=True, help="Or float64, bfloat16, tf32.")
@click.option(
    "--path",
    default="derived",
    show_default=True,
    help="derived: the program's own gradient; native: the framework's layers and gradient; "
    "equations: its gradient of the equations; fastest: tries them.",
)
@seed("Of first weights and of the order.")
@SIZE
@click.option(
    "--threads",
    type=number(THREADS),
    default=0,
    help="Threads of the backend; all cores if left out.",
)
@click.option("--python", help="Run the backend in another environment.")
@OWN_ENVIRONMENT
@timeout(600.0, "Seconds for one call.")
@click.option("--json", "as_json", is_flag=True, help="Print the history as JSON at the end.")
@SPECS
def train(spec: str, backend: str, **options: Any) -> None:
    """Train SPEC on a text, as the spec's own phases say.

    Exit code 0: done; 1: the loss is no number any more, the last good weights are kept; 2: wrong
    usage or a wrong file; 3: the backend failed; 130: interrupted.
    """
    from harness.train.console import run_train
    from harness.train.request import TrainRequest

    names = ("text", "encoding", "epochs", "batch", "every", "held_out", "device", "dtype", "path")
    request = TrainRequest(
        spec,
        backend,
        **{name: options[name] for name in (*names, "seed", "threads", "timeout")},
        sizes=numbers(options["sizes"]),
        proof=not options["no_proof"],
        folders=tuple(options["folders"]),
        python=options["python"] or sys.executable,
        environment=pairs("--env", options["env"]),
    )
    path = options["weights"]
    run = partial(run_train, request, path, options["resume"], options["force"], options["as_json"])
    sys.exit(stoppable(run))
