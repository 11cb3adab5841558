"""The commands ``list``, ``explain``, ``replay`` and ``localise``, and options of ``check``.

``check`` itself is in :mod:`harness.commands`. What a command needs is imported when it is run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, make_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.command import options, shared
from harness.command.declared import LIST, build, option, takes
from harness.command.interrupts import stoppable
from harness.command.options import numbers
from harness.command.ranges import CELL_SECONDS
from harness.output.printing import say, tell

# What can be listed.
KINDS = (
    *("backends", "formats", "models", "layers", "functions", "losses", "optimizers"),
    "initializers",
)


KIND_OPTIONS = make_dataclass(
    "KIND_OPTIONS",
    [
        (kind, "bool", option(False, f"List the {kind}, and no others.", section=LIST))
        for kind in KINDS
    ],
    init=False,
    repr=False,
    eq=False,
)


@dataclass(init=False, repr=False, eq=False)
class ListOptions:
    """Options of ``list``."""

    folders: tuple[Path, ...] = shared.folders()
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class ExplainOptions:
    """Options of ``explain``."""

    spec: str = shared.spec()
    folders: tuple[Path, ...] = shared.folders()
    sizes: Mapping[str, int] = shared.sizes()
    backends: tuple[str, ...] = option(
        (), "Also ask which path its layers take.", word="--backend", kind="backend"
    )
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class ReplayOptions:
    """Options of ``replay``, and of what else is about a reproducer."""

    folder: Path = option(MISSING, "Folder of the reproducer.", word="folder")
    backend: str | None = option(None, "Run it on another backend.", kind="backend")
    device: str | None = option(
        None,
        "Device to compute on. If left out, FOLDER's; the CPU of another backend without it.",
        kind="device",
    )
    python: str | None = shared.python()
    environment: Mapping[str, str] = shared.variables()
    as_json: bool = shared.as_json()


@dataclass(init=False, repr=False, eq=False)
class LocaliseOptions:
    """Options of ``localise``."""

    spec: str = shared.spec()
    backend: str = shared.backend()
    against: str | None = option(None, "Another backend, in place of the oracle.", kind="backend")
    dtype: str = shared.dtype("float32", "float64, bfloat16 and float16")
    path: str = shared.path("native")
    device: str = shared.device()
    folders: tuple[Path, ...] = shared.folders()
    sizes: Mapping[str, int] = shared.sizes()
    checks: tuple[str, ...] = shared.checks()
    pythons: Mapping[str, str] = shared.pythons()
    environment: Mapping[str, Mapping[str, str]] = shared.environment()
    timeout: float = shared.timeout(CELL_SECONDS, "cell")
    seed: int = shared.seed("Seed of the numbers to compare with.")
    as_json: bool = shared.as_json()


@takes(KIND_OPTIONS)
@takes(ListOptions)
def list_command(folders: tuple[Path, ...], as_json: bool, **wanted: bool) -> None:
    """List installed backends, formats, models and definitions. Imports no framework."""
    from harness.checking.explain_definition import as_data, as_text

    kinds = [kind for kind in KINDS if wanted[kind]]
    chosen = kinds or KINDS
    if as_json:
        say(json.dumps(as_data(chosen, folders)))
    else:
        tell(as_text(chosen, folders, described=bool(kinds)))


@takes(ExplainOptions)
def explain(spec: str, **given: Any) -> None:
    """Show what SPEC means: a model's program, shapes, parameters, operations and paths.

    SPEC may also be a layer, a function, a loss, an optimizer or an initializer.
    """
    from harness.checking import explain as explaining
    from harness.environments.columns import Columns, of_options
    from harness.files.forms import plain
    from harness.worker.launch import Launch

    columns = Columns(())
    if given["backends"]:
        columns = of_options(given["backends"], given["pythons"])
    environment = options.variables(given["environment"], lambda: columns.names)
    launches = [
        Launch(name, columns.pythons.get(name, sys.executable), environment.get(name, {}))
        for name in columns.names
    ]

    def run() -> int:
        asked = (spec, given["folders"], numbers(given["sizes"]), launches)
        found = explaining.explain(*asked, partial(tell, error=True))
        if given["as_json"]:
            say(json.dumps(plain(found.data())))
        else:
            tell(found.text())
        return 0

    sys.exit(stoppable(run))


@takes(ReplayOptions)
def replay(folder: Path, backend: str | None, **given: Any) -> None:
    """Run the reproducer in FOLDER again: exit code 0 if it agrees now, 1 if it differs."""
    from harness.checking.replay import run_replay

    sys.exit(stoppable(partial(run_replay, folder, backend, given)))


@takes(LocaliseOptions)
def localise(spec: str, **given: Any) -> None:
    """Look for the cause of a difference: SPEC on one backend, against the oracle or another.

    The right value is fed in where a value, a gradient or a step is first wrong: what then agrees
    was wrong because of it. Exit code 0: all agrees; 1: something differs, and the cause is told;
    2: wrong usage or a wrong spec; 3: a backend could not be run.
    """
    from harness.checking.causes.run import run_localise
    from harness.checking.request import Request
    from harness.environments.columns import names_of, of_command

    asked = tuple(filter(None, (given["backend"], given["against"])))
    found = of_command(LocaliseOptions, {**given, "backends": asked})
    backend, *others = names_of(asked)
    of_cell = {"specs": (spec,), "backends": (backend,)}
    of_cell |= {"dtypes": (given["dtype"],), "paths": (given["path"],)}
    # ``against`` of a request is a model of the user's; here it is a backend.
    request = build(Request, {**found, **of_cell, "against": None})
    sys.exit(
        stoppable(partial(run_localise, request, others[0] if others else None, given["as_json"]))
    )
