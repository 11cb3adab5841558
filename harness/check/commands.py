"""The command ``localise``, and options of ``check``. What they need is imported when run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from harness import options
from harness.interrupts import stoppable
from harness.options import WordList, listed, numbers, seed, timeout

Command = Callable[..., Any]


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the command to a group; ``guard`` makes a message of a user's error."""
    group.command("localise")(guard(localise))


@options.spec
@options.BACKEND
@click.option(
    "--against", type=WordList("backend"), help="Another backend, in place of the oracle."
)
@options.dtype("float32", "float64, bfloat16 and float16")
@options.path("native")
@options.DEVICE
@options.SPECS
@options.SIZE
@listed("--check", "checks", kind="check", help="Checks to run (patterns); all if left out.")
@options.PYTHONS
@options.ENVIRONMENT
@timeout(120.0)
@seed("Seed of the numbers to compare with.")
@options.JSON
def localise(spec: str, **given: Any) -> None:
    """Look for the cause of a difference: SPEC on one backend, against the oracle or another.

    The right value is fed in where a value, a gradient or a step is first wrong: what then agrees
    was wrong because of it. Exit code 0: all agrees; 1: something differs, and the cause is told;
    2: wrong usage or a wrong spec; 3: a backend could not be run.
    """
    from harness.check.localising import run_localise
    from harness.check.request import Request
    from harness.columns import names_of, of_options

    asked = tuple(filter(None, (given["backend"], given["against"])))
    columns = of_options(asked, given["pythons"])
    backend, *others = names_of(asked)
    request = Request(
        specs=(spec,),
        backends=(backend,),
        dtypes=(given["dtype"],),
        paths=(given["path"],),
        device=given["device"],
        folders=given["folders"],
        sizes=numbers(given["sizes"]),
        pythons=columns.pythons,
        environment=options.variables(given["environment"], partial(names_of, asked)),
        timeout=given["timeout"],
        checks=given["checks"] or ("*",),
        seed=given["seed"],
    )
    sys.exit(
        stoppable(partial(run_localise, request, others[0] if others else None, given["as_json"]))
    )


def own_model(command: Command) -> Command:
    """The options of ``check`` for a model of a user's own."""
    for option in reversed(
        (
            click.option(
                "--against",
                metavar="MODEL",
                help="Check a model of your own: FILE.py:NAME, or a .onnx or .keras file.",
            ),
            listed(
                "--map",
                "maps",
                pairs=True,
                metavar="OURS=THEIRS",
                help="Which weight of your model is which of the spec's, where names differ; or a "
                "file of such lines.",
            ),
            listed(
                "--takes",
                metavar="NAME",
                help="What your model takes, in order: inputs, and state.NAME.",
            ),
            listed(
                "--returns",
                metavar="NAME",
                help="What your model returns, in order: outputs, and state.NAME.",
            ),
        )
    ):
        command = option(command)
    return command
