"""The commands ``export`` and ``import``. What they need is imported when they are run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.interrupts import stoppable
from harness.options import SIZE, SPECS, numbers, seed, timeout

Command = Callable[..., Any]
FILE = click.Path(path_type=Path)
PYTHON = click.option("--python", help="Run the format in another environment.")
TIMEOUT = timeout(600.0, "Seconds for one call.")
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def register(group: click.Group, guard: Callable[[Command], Command]) -> None:
    """Add the commands to a group; ``guard`` makes a message of a user's error."""
    group.command("export")(guard(export))
    group.command("import")(guard(import_))


@click.argument("spec")
@click.option("--weights", required=True, type=FILE, help="What train or import wrote.")
@click.option("--to", "format_", required=True, metavar="FORMAT", help="torch, keras, jax, onnx.")
@click.option("--output", type=FILE, help="File to write; MODEL_FORMAT here if left out.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@seed("Of the inputs to check with.")
@SPECS
@PYTHON
@TIMEOUT
@JSON
def export(spec: str, **options: Any) -> None:
    """Write SPEC with its weights as a framework's user expects it.

    The files are run by that framework alone, and kept if their outputs agree with the oracle's.

    Exit code 0: they agree; 1: they differ, and nothing was written; 2: wrong usage or a wrong
    file; 3: the format could not be run.
    """
    from harness.convert.console import run_export
    from harness.convert.run import Export

    as_json = options.pop("as_json")
    python = options.pop("python") or sys.executable
    request = Export(spec, python=python, **options)
    sys.exit(stoppable(partial(run_export, request, as_json)))


@click.argument("spec")
@click.argument("file", type=FILE)
@click.option("--from", "format_", required=True, metavar="FORMAT", help="torch, keras, jax, onnx.")
@click.option("--weights", required=True, type=FILE, help="File of weights to write.")
@click.option("--like", type=FILE, help="Weights whose sizes and characters these have too.")
@SIZE
@click.option("--force", is_flag=True, help="Write over weights that are there.")
@SPECS
@PYTHON
@TIMEOUT
@JSON
def import_(spec: str, file: Path, **options: Any) -> None:
    """Make weights of SPEC from FILE, such as a state_dict or a .keras file.

    Exit code 0: done; 2: wrong usage or a wrong file; 3: the format could not be run.
    """
    from harness.convert.console import run_import
    from harness.convert.run import Import

    as_json, sizes = options.pop("as_json"), numbers(options.pop("sizes"))
    python = options.pop("python") or sys.executable
    request = Import(spec, file, sizes=sizes, python=python, **options)
    sys.exit(stoppable(partial(run_import, request, as_json)))
