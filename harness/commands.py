"""The commands of ``harness``. What they need beside click is imported when they are run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from harness.bench import commands as bench_commands
from harness.check import commands as check_commands
from harness.comparison import commands as comparison_commands
from harness.convert import commands as convert_commands
from harness.defaults import commands as defaults_commands
from harness.demo import commands as demo_commands
from harness.errors import HarnessError
from harness.given import commands as given_commands
from harness.interrupts import stoppable
from harness.options import (
    DETERMINISTIC,
    DEVICE,
    ENVIRONMENT,
    PYTHONS,
    SIZE,
    SPECS,
    START,
    number,
    numbers,
    pairs,
    seed,
    timeout,
    variables,
)
from harness.ranges import MEMORY_MIB, REPEAT
from harness.report import commands as report_commands
from harness.terminal import say
from harness.train import commands as train_commands
from harness.train.generate import commands as generate_commands

Command = Callable[..., Any]


def friendly(command: Command) -> Command:
    """A user's error is a message and exit code 2, never a traceback."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except HarnessError as error:
            say(str(error), error=True)
            sys.exit(2)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="backend-comparison-harness", prog_name="harness")
def cli() -> None:
    """Compare how frameworks run one model, declared once as data."""


@cli.command("list")
@SPECS
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@friendly
def list_command(folders: tuple[Path, ...], as_json: bool) -> None:
    """List installed backends, formats, models and definitions. Imports no framework."""
    from harness.runtime.hookspecs import FORMATS_GROUP
    from harness.runtime.plugins import available
    from harness.spec.library import FOLDERS, Library

    library = Library(folders)
    plugins = {
        kind: {
            name: {"distribution": o.distribution, "version": o.version, "module": o.module}
            for name, o in found.items()
        }
        for kind, found in (("backends", available()), ("formats", available(FORMATS_GROUP)))
    }
    names = {kind: library.names(kind) for kind in FOLDERS}
    if as_json:
        say(json.dumps({**plugins, **names}))
        return
    for kind, entries in plugins.items():
        say(kind)
        for name, origin in entries.items():
            where = f"{origin['distribution']} {origin['version']} ({origin['module']})"
            say(f"  {name:14} {where}")
    for kind, found in names.items():
        say(FOLDERS[kind])
        for name in found:
            say(f"  {name}")


@cli.command()
@click.argument("spec")
@SPECS
@SIZE
@click.option("--backend", "backends", multiple=True, help="Also ask which path its layers take.")
@friendly
def explain(
    spec: str, folders: tuple[Path, ...], sizes: Sequence[str], backends: tuple[str, ...]
) -> None:
    """Show what SPEC means: its program, shapes, parameters, FLOPs and paths."""
    from harness.check.explain import explain as text

    def run() -> int:
        say(text(spec, folders, numbers(sizes), backends))
        return 0

    sys.exit(stoppable(run))


@cli.command()
@click.argument("kind", type=click.Choice(["model", "layer", "function", "loss", "optimizer"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of a kind of spec file, for editors."""
    from harness.spec.schema import json_schema

    say(json.dumps(json_schema(kind), indent=2))


@cli.command()
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@click.option("--backend", "backends", multiple=True, help="Backend to check; all if left out.")
@click.option("--dtype", "dtypes", multiple=True, help="float64 or float32; both if left out.")
@DEVICE
@click.option(
    "--path",
    default="native",
    show_default=True,
    type=click.Choice(["native", "equations", "derived", "both", "all"]),
    help="The framework's own layers where it has them; the equations; the equations with the "
    "derived gradient; native and equations both; or all three.",
)
@SPECS
@SIZE
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Check at these parameters (.safetensors) of the one SPEC, not at drawn ones.",
)
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    help="Check at this batch (.npz): arrays NAME, and target.NAME and state.NAME if wanted.",
)
@click.option("--check", "checks", multiple=True, help="Checks to run (patterns); all if left out.")
@click.option("--thorough", is_flag=True, help="The dear checks too (docs/method.md).")
@click.option("--repeat", type=number(REPEAT), default=0, help="Soak: repeat a pass so often.")
@DETERMINISTIC
@PYTHONS
@ENVIRONMENT
@timeout(120.0, "Seconds for one cell.")
@START
@click.option("--memory", type=number(MEMORY_MIB), help="Resident MiB that a worker may take.")
@click.option("--records", type=click.Path(path_type=Path), help="Append records to this file.")
@click.option("--resume", is_flag=True, help="Keep the cells that --records holds already.")
@click.option("--reproducers", type=click.Path(path_type=Path), help="Folder for reproducers.")
@seed("Of the numbers to check with.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option("--verbose", is_flag=True, help="Every check of every cell.")
@friendly
@report_commands.reported("records")
def check(**options: Any) -> None:
    """Check backends against the oracle: all that are installed, on all of Lesson 6, if left out.

    Exit code 0: all agree, or differ as known; 1: something differs; 2: wrong usage or a wrong
    spec; 3: a backend could not be run.
    """
    from harness.check.console import run_check
    from harness.upstream.bundle import Upstream

    request = request_of(options)
    kept = f"cells that had ended are in {request.records}" if request.records else ""

    def run() -> int:
        with Upstream(request) as upstream:
            return run_check(request, options, sys.argv[1:], upstream)

    sys.exit(stoppable(run, lambda: kept))


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--backend", help="Replay on another backend.")
@friendly
def replay(folder: Path, backend: str | None) -> None:
    """Run the reproducer in FOLDER again and compare."""
    from harness.check.console import run_replay

    sys.exit(stoppable(partial(run_replay, folder, backend)))


bench_commands.register(cli, lambda c: friendly(report_commands.reported("json", junit=False)(c)))
comparison_commands.register(cli, friendly)
check_commands.register(cli, friendly)
given_commands.register(cli, friendly)
demo_commands.register(cli, friendly)
report_commands.register(cli, friendly)
train_commands.register(cli, friendly)
generate_commands.register(cli, friendly)
convert_commands.register(cli, friendly)
defaults_commands.register(cli, friendly)


def request_of(options: Mapping[str, Any]) -> Any:
    """The request that command-line options stand for; :class:`UsageError` for a bad one."""
    from harness.check.request import DTYPES, PATHS, Request

    dtypes = options["dtypes"] or DTYPES
    sizes, given = numbers(options["sizes"]), None
    if options["weights"] is not None or options["inputs"] is not None:
        from harness.given.files import gather_for

        weights, inputs = options["weights"], options["inputs"]
        folders = options["folders"]
        given = gather_for(options["specs"], folders, sizes, parameters=weights, inputs=inputs)
    path = options["path"]
    return Request(
        specs=tuple(options["specs"]),
        backends=tuple(options["backends"]),
        dtypes=tuple(dtypes),
        paths={"both": ("native", "equations"), "all": PATHS}.get(path, (path,)),
        device=options["device"],
        folders=tuple(options["folders"]),
        sizes=sizes,
        pythons=pairs("--python", options["pythons"]),
        environment=variables(options["environment"]),
        timeout=options["timeout"],
        start_timeout=options["start_timeout"],
        memory_limit=options["memory"] * 2**20 if options["memory"] else None,
        checks=tuple(options["checks"]) or ("*",),
        thorough=options["thorough"],
        repeat=options["repeat"],
        deterministic=options["deterministic"],
        records=options["records"],
        resume=options["resume"],
        seed=options["seed"],
        given=given,
    )
