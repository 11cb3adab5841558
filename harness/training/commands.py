"""The command ``train``. What it needs is imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from harness.command import options
from harness.command.interrupts import stoppable
from harness.command.options import FILE, WordList, number, numbers, seed, timeout
from harness.command.ranges import BATCH, EPOCHS, EVERY, HELD_OUT, THREADS

Command = Callable[..., Any]


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command()(guard(train))


@options.spec
@options.BACKEND
@click.option(
    "--text",
    type=WordList("text"),
    help="Text to train on: builtin (Python's own documentation, if left out), nietzsche (the "
    "notebook's), or a file.",
)
@click.option(
    "--data", type=FILE, help="npz file of a SPEC that is trained on arrays, in place of its own."
)
@click.option("--encoding", default="utf-8", show_default=True, help="Encoding of a text file.")
@click.option("--epochs", type=number(EPOCHS), help="The spec's own phases if left out.")
@click.option("--batch", type=number(BATCH), help="Rows of a step; the spec's own if left out.")
@click.option("--weights", type=FILE, help="File of weights to write, with checkpoints beside it.")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint, if there is one.")
@click.option(
    "--no-proof",
    is_flag=True,
    help="Do not hold the first steps against the oracle.",
)
@options.FORCE
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
@options.DEVICE
@options.dtype("float32", "float64, bfloat16, float16 and tf32")
@options.path("derived", options.COMPILED, "or whichever is right and fastest (fastest)")
@seed("Seed of the first weights and of the order.")
@options.SIZE
@click.option(
    "--threads",
    type=number(THREADS),
    default=0,
    help="Threads of the backend; all cores if left out.",
)
@options.PYTHONS
@options.ENVIRONMENT
@timeout(600.0)
@options.JSON
@options.SPECS
def train(spec: str, backend: str, **given: Any) -> None:
    """Train SPEC on a text or on arrays, as the spec's own phases say.

    Exit code 0: done; 1: the loss became NaN or infinite, the last good weights are kept; 2: wrong
    usage or a wrong file; 3: the backend failed; 130: interrupted.
    """
    from harness.environments.columns import process_of
    from harness.training.console import run_train
    from harness.training.request import TrainRequest

    column, python, environment = process_of(given, backend)
    names = ["text", "data", "encoding", "epochs", "batch", "every", "held_out"]
    names += ["device", "dtype", "path", "seed", "threads", "timeout"]
    request = TrainRequest(
        spec,
        column,
        **{name: given[name] for name in names},
        sizes=numbers(given["sizes"]),
        proof=not given["no_proof"],
        folders=tuple(given["folders"]),
        python=python,
        environment=environment,
    )
    path = given["weights"]
    run = partial(run_train, request, path, given["resume"], given["force"], given["as_json"])
    sys.exit(stoppable(run))
