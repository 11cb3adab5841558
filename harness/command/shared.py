"""Options that have the same meaning in several commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING
from functools import partial
from typing import Any

from harness.command.declared import HOW, KEEP, PRINT, option
from harness.command.ranges import ROUNDS, SEED, THREADS, TIMEOUT, USUAL_ROUNDS

Field = Callable[..., Any]
# Parts of the help texts of options of bench and train.
COMPILED = "that through the framework's compiler of whole steps, where it has one (compiled)"
INTERPRETER = (
    "Python of another environment, with the harness in it, to run a backend in; every backend if "
    "none is named."
)

spec: Field = partial(
    option,
    MISSING,
    "Model by name or file.",
    word="spec",
    kind="model",
    python="A name, the path of a file, or a spec that is loaded.",
)
backend: Field = partial(
    option,
    MISSING,
    help_="The backend to run.",
    kind="backend",
    python="A name of ``harness list``.",
)
specs: Field = partial(
    option,
    (),
    "Models by name or file; Lesson 6, the twelve that ship as lesson6/NAME, if left out.",
    word="specs",
    kind="model",
    metavar="[SPEC]...",
    python="Names, paths of files, or specs that are loaded; all of Lesson 6 if left out.",
)
backends: Field = partial(
    option,
    (),
    "Backends; all if left out.",
    word="--backend",
    kind="backend",
    python="Names of ``harness list``; all that are installed if left out.",
)
device: Field = partial(
    option,
    "cpu",
    "Device to compute on: cpu, cuda, cuda:1. Backends of your own may have others.",
    kind="device",
    shown=True,
)
sizes: Field = partial(
    option,
    {},
    "Sizes that differ from the spec's own.",
    word="--size",
    kind="size",
    metavar="NAME=NUMBER",
)
folders: Field = partial(
    option,
    (),
    "Folders of further definitions, searched before those that ship.",
    word="--specs",
    kind="folder",
    metavar="FOLDER",
)
pythons: Field = partial(
    option,
    {},
    INTERPRETER,
    section=HOW,
    word="--python",
    kind="file",
    metavar="[BACKEND=]INTERPRETER",
    python="Interpreters of other environments, with the harness in them, by backend.",
)
environment: Field = partial(
    option,
    {},
    "Environment variables of a backend's process; of every backend's if none is named.",
    section=HOW,
    word="--env",
    metavar="[BACKEND:]NAME=VALUE",
    python="Environment variables of a backend's process, by backend.",
)
python: Field = partial(
    option,
    None,
    INTERPRETER,
    section=HOW,
    kind="file",
    metavar="[BACKEND=]INTERPRETER",
    python="The interpreter of another environment, with the harness in it.",
)
variables: Field = partial(environment, python="Environment variables of the backend's process.")
checks: Field = partial(
    option, ("*",), "Checks to run (patterns); all if left out.", word="--check", kind="check"
)
shard: Field = partial(
    option, None, "Take a part of the run: 2/4 is the second of four.", metavar="NUMBER/COUNT"
)
on: Field = partial(
    option,
    None,
    "Run on the nodes of a Ray cluster: that of this machine, or the one whose head has the "
    "address.",
    section=HOW,
    kind="cluster",
    metavar="ray[://HOST:PORT]",
)
as_json: Field = partial(
    option, False, "Print JSON, for a program to read.", section=PRINT, word="--json", python=None
)
verbose: Field = partial(
    option, False, "Print all figures and messages.", section=PRINT, python=None
)
force: Field = partial(option, False, "Replace what is there from an earlier run.", section=KEEP)
print_markdown: Field = partial(
    option, False, "Print Markdown, not tables.", section=PRINT, python=None
)
html: Field = partial(option, None, "File to write a page of the run to.", section=KEEP)
markdown: Field = partial(option, None, "File to write Markdown of the run to.", section=KEEP)
threads: Field = partial(option, 0, section=HOW, allowed=THREADS)
rounds: Field = partial(
    option, USUAL_ROUNDS, "Rounds of interleaved measurement.", allowed=ROUNDS, shown=True
)
threshold: Field = partial(
    option, 0.1, "How much slower a cell may get; 10% if left out.", section=PRINT, metavar="SHARE"
)


def dtype(default: str, others: str) -> Any:
    """Return the field of ``--dtype`` for a command that computes in a single dtype."""
    told = f"Type of the numbers to compute in; also {others}."
    return option(default, told, kind="dtype", shown=True)


def path(default: str, *others: str) -> Any:
    """Return the field of ``--path`` for a command that runs a single path."""
    told = (
        "Path of execution: the framework's own layers where it has them (native), its gradient of "
        "the equations (equations), or the derived gradient (derived)"
    )
    return option(default, "; ".join((told, *others)) + ".", kind="path", shown=True)


def output(what: str, default: Any = None, **more: Any) -> Any:
    """Return the field of ``--output``."""
    return option(default, what, section=KEEP, word="--output", short="-o", **more)


def seed(what: str, **more: Any) -> Any:
    """Return the field of ``--seed``."""
    return option(0, what, allowed=SEED, shown=True, **more)


def timeout(seconds: float, piece: str = "call", **more: Any) -> Any:
    """Return the field of ``--timeout``: the seconds for one ``piece`` of the work, e.g. a call."""
    told = f"Seconds that a backend may take for one {piece}, and the oracle for what it expects."
    return option(seconds, told, section=HOW, allowed=TIMEOUT, shown=True, **more)
