"""The commands ``export`` and ``import``. What they need is imported when they are run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.command import options
from harness.command.interrupts import stoppable
from harness.command.options import FILE, WordList, numbers, process_of, seed, timeout

Command = Callable[..., Any]
FORMAT = "torch, keras, jax or onnx."
TIMEOUT = timeout(600.0)


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the commands to a group; ``guard`` makes a message of a user's error."""
    group.command("export")(guard(export))
    group.command("import")(guard(import_))


@options.spec
@click.option(
    "--weights", required=True, type=FILE, help="File of weights that train or import wrote."
)
@click.option("--to", "format_", required=True, type=WordList("format"), help=FORMAT)
@click.option("-o", "--output", type=FILE, help="File to write; MODEL_FORMAT here if left out.")
@options.FORCE
@seed("Seed of the inputs to check with.")
@options.SPECS
@options.PYTHONS
@TIMEOUT
@options.JSON
def export(spec: str, **given: Any) -> None:
    """Write SPEC with its weights as a framework's user expects it.

    The files are run by that framework alone, and kept if their outputs agree with the oracle's.

    Exit code 0: they agree; 1: they differ, and nothing was written; 2: wrong usage or a wrong
    file; 3: the format could not be run.
    """
    from harness.convert.console import run_export
    from harness.convert.request import Export

    as_json, pythons = given.pop("as_json"), given.pop("pythons")
    python, _ = process_of({"pythons": pythons}, given["format_"], sys.executable)
    request = Export(spec, python=python, **given)
    sys.exit(stoppable(partial(run_export, request, as_json)))


@options.spec
@click.argument("file", type=FILE)
@click.option("--from", "format_", required=True, type=WordList("format"), help=FORMAT)
@click.option("--weights", required=True, type=FILE, help="File of weights to write.")
@click.option("--like", type=FILE, help="Weights whose sizes and characters these have too.")
@options.SIZE
@options.FORCE
@options.SPECS
@options.PYTHONS
@TIMEOUT
@options.JSON
def import_(spec: str, file: Path, **given: Any) -> None:
    """Make weights of SPEC from FILE, such as a state_dict or a .keras file.

    Exit code 0: done; 2: wrong usage or a wrong file; 3: the format could not be run.
    """
    from harness.convert.console import run_import
    from harness.convert.request import Import

    as_json, sizes, pythons = given.pop("as_json"), given.pop("sizes"), given.pop("pythons")
    python, _ = process_of({"pythons": pythons}, given["format_"], sys.executable)
    request = Import(spec, file, sizes=numbers(sizes), python=python, **given)
    sys.exit(stoppable(partial(run_import, request, as_json)))
