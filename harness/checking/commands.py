"""The commands ``list``, ``explain``, ``replay`` and ``localise``, and options of ``check``.

``check`` itself is in :mod:`harness.commands`. What a command needs is imported when it is run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.command import options
from harness.command.interrupts import stoppable
from harness.command.options import WordList, listed, numbers, seed, timeout
from harness.output.printing import say, tell

Command = Callable[..., Any]
# What can be listed.
KINDS = (
    *("backends", "formats", "models", "layers", "functions", "losses", "optimizers"),
    "initializers",
)

OTHER_DEVICE = click.option(
    "--device",
    type=WordList("device"),
    help="Device to compute on. If left out, FOLDER's; the CPU of another backend without it.",
)


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the commands to a group; ``guard`` makes a message of a user's error."""
    group.command("list")(guard(list_command))
    for command in (explain, replay, localise):
        group.command(command.__name__)(guard(command))


def _kinds(command: Command) -> Command:
    """A flag for each kind of thing that can be listed."""
    for kind in reversed(KINDS):
        told = f"List the {kind}, and no others."
        command = click.option(f"--{kind}", is_flag=True, help=told)(command)
    return command


@_kinds
@options.SPECS
@options.JSON
def list_command(folders: tuple[Path, ...], as_json: bool, **wanted: bool) -> None:
    """List installed backends, formats, models and definitions. Imports no framework."""
    from harness.checking.listing import as_data, as_text

    kinds = [kind for kind in KINDS if wanted[kind]]
    chosen = kinds or KINDS
    if as_json:
        say(json.dumps(as_data(chosen, folders)))
    else:
        tell(as_text(chosen, folders, described=bool(kinds)))


@options.spec
@options.SPECS
@options.SIZE
@listed("--backend", "backends", kind="backend", help="Also ask which path its layers take.")
@options.PYTHONS
@options.ENVIRONMENT
@options.JSON
def explain(spec: str, **given: Any) -> None:
    """Show what SPEC means: a model's program, shapes, parameters, operations and paths.

    SPEC may also be a layer, a function, a loss, an optimizer or an initializer.
    """
    from harness.checking.explain import explain as text
    from harness.checking.explain import explain_data
    from harness.environments.columns import Columns, of_options
    from harness.files.forms import plain

    columns = Columns(())
    if given["backends"]:
        columns = of_options(given["backends"], given["pythons"])
    names, pythons = columns.names, columns.pythons
    environment = options.variables(given["environment"], lambda: names)

    def run() -> int:
        asked = (spec, given["folders"], numbers(given["sizes"]), names, pythons, environment)
        note = partial(tell, error=True)
        if given["as_json"]:
            say(json.dumps(plain(explain_data(*asked, note))))
        else:
            tell(text(*asked, note))
        return 0

    sys.exit(stoppable(run))


@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--backend", type=options.WordList("backend"), help="Replay on another backend.")
@OTHER_DEVICE
@options.PYTHONS
@options.ENVIRONMENT
@options.JSON
def replay(folder: Path, backend: str | None, **given: Any) -> None:
    """Run the reproducer in FOLDER again: exit code 0 if it agrees now, 1 if it differs."""
    from harness.checking.replay import run_replay

    sys.exit(stoppable(partial(run_replay, folder, backend, given)))


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
@timeout(120.0, "cell")
@seed("Seed of the numbers to compare with.")
@options.JSON
def localise(spec: str, **given: Any) -> None:
    """Look for the cause of a difference: SPEC on one backend, against the oracle or another.

    The right value is fed in where a value, a gradient or a step is first wrong: what then agrees
    was wrong because of it. Exit code 0: all agrees; 1: something differs, and the cause is told;
    2: wrong usage or a wrong spec; 3: a backend could not be run.
    """
    from harness.checking.causes.run import run_localise
    from harness.checking.request import Request
    from harness.environments.columns import names_of, of_options

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
