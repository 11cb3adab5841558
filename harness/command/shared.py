"""Options that have the same meaning in several commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING
from functools import partial
from pathlib import Path
from typing import Any

from harness.command.declared import HOW, KEEP, PRINT, option
from harness.command.ranges import ROUNDS, SEED, THREADS, TIMEOUT, USUAL_ROUNDS
from harness.errors import UsageError

Field = Callable[..., Any]
# Parts of the help texts of options of bench and train.
COMPILED = "compiled (derived, through the framework's compiler)"
INTERPRETER = (
    "Python interpreter that runs a backend, from another environment that has the harness. "
    "If no BACKEND is named, it runs all backends."
)

spec: Field = partial(
    option,
    MISSING,
    "Model by name or file.",
    word="spec",
    kind="model",
    python="The name of a model, the path of a file, or a loaded spec.",
)
backend: Field = partial(
    option,
    MISSING,
    help_="Backend to run.",
    kind="backend",
    python="A name of ``harness list``.",
)
specs: Field = partial(
    option,
    (),
    "Models by name or file. Default: Lesson 6, twelve models that ship as lesson6/NAME.",
    word="specs",
    kind="model",
    metavar="[SPEC]...",
    python="Names of models, paths of files, or loaded specs. Default: all of Lesson 6.",
)
backends: Field = partial(
    option,
    (),
    "Backends to run. Default: all installed, except those that run only on request.",
    word="--backend",
    kind="backend",
    python="Names of ``harness list``. Default: all installed backends, except those that run only "
    "on request.",
)
device: Field = partial(
    option,
    "cpu",
    "Device, such as cpu, cuda, cuda:1 or mps. Plugins may have other devices.",
    kind="device",
    shown=True,
)
sizes: Field = partial(
    option,
    {},
    "Sizes that replace the spec's sizes.",
    word="--size",
    kind="size",
    metavar="NAME=NUMBER",
)
folders: Field = partial(
    option,
    (),
    "Folders of your specs, searched before the specs that ship.",
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
    python="Python interpreter for each backend, from environments that have the harness.",
)
environment: Field = partial(
    option,
    {},
    "Environment variables for a backend's process. If no BACKEND is named, all backends get them.",
    section=HOW,
    word="--env",
    metavar="[BACKEND:]NAME=VALUE",
    python="Environment variables for the process of each backend.",
)
python: Field = partial(
    option,
    None,
    INTERPRETER,
    section=HOW,
    kind="file",
    metavar="[BACKEND=]INTERPRETER",
    python="Python interpreter from another environment that has the harness.",
)
variables: Field = partial(environment, python="Environment variables for the backend's process.")
checks: Field = partial(
    option,
    ("*",),
    "Checks to run, as names or patterns. Default: all.",
    word="--check",
    kind="check",
)
shard: Field = partial(
    option,
    None,
    "Run one part of the cells: 2/4 is the second of four parts.",
    metavar="NUMBER/COUNT",
)
on: Field = partial(
    option,
    None,
    "Run on a Ray cluster: ray for this machine's cluster, ray://HOST:PORT for the cluster whose "
    "head node has this address.",
    section=HOW,
    kind="cluster",
    metavar="ray[://HOST:PORT]",
)
records: Field = partial(option, None, "Append the results to this record file.", section=KEEP)
resume: Field = partial(option, False, "Skip what the file of --records already has.", section=KEEP)
as_json: Field = partial(
    option, False, "Print JSON instead of text.", section=PRINT, word="--json", python=None
)
verbose: Field = partial(
    option, False, "Print all measured numbers and all messages.", section=PRINT, python=None
)
force: Field = partial(
    option, False, "Replace the existing output of an earlier command.", section=KEEP
)
print_markdown: Field = partial(
    option, False, "Print Markdown instead of tables.", section=PRINT, python=None
)
html: Field = partial(option, None, "Write a report as an HTML page to this file.", section=KEEP)
markdown: Field = partial(option, None, "Write a report as Markdown to this file.", section=KEEP)
threads: Field = partial(option, 0, section=HOW, allowed=THREADS)
rounds: Field = partial(
    option,
    USUAL_ROUNDS,
    "Number of rounds. Each round times every backend once.",
    allowed=ROUNDS,
    shown=True,
)
threshold: Field = partial(
    option,
    0.1,
    "Allowed slowdown of a cell, such as 5% or 0.05. Default: 10%.",
    section=PRINT,
    metavar="SHARE",
)


def check_resume(records: Path | None, resume: bool) -> None:
    """Raise :class:`UsageError` if ``--resume`` is given without ``--records``."""
    if resume and records is None:
        raise UsageError("--resume needs --records FILE, the file of the run to continue")


def dtype(default: str, others: str) -> Any:
    """Return the dataclass field that declares ``--dtype``, for a command that computes in a single
    dtype. ``others`` is help text about the other dtypes."""
    help_text = f"Dtype. Other choices: {others}."
    return option(default, help_text, kind="dtype", shown=True)


def path(default: str, *others: str) -> Any:
    """Return the dataclass field that declares ``--path``, for a command that runs a single path,
    e.g. ``native``. ``others`` are further help texts."""
    help_text = (
        "Path: native (framework layers), equations (framework gradients), derived (harness "
        "gradients)"
    )
    return option(default, ", ".join((help_text, *others)) + ".", kind="path", shown=True)


def output(what: str, default: Any = None, **more: Any) -> Any:
    """Return the dataclass field that declares ``--output``; ``what`` is the help text. ``more``
    has further fields of :class:`.Option`."""
    return option(default, what, section=KEEP, word="--output", short="-o", **more)


def seed(what: str, **more: Any) -> Any:
    """Return the dataclass field that declares ``--seed``; ``what`` is the help text. ``more`` has
    further fields of :class:`.Option`."""
    return option(0, what, allowed=SEED, shown=True, **more)


def timeout(seconds: float, piece: str = "call", **more: Any) -> Any:
    """Return the dataclass field that declares ``--timeout``, with the default ``seconds``. In the
    help text, ``piece`` names the work that the limit is for, e.g. "call" for one call of a
    backend. ``more`` has further fields of :class:`.Option`."""
    help_text = f"Time limit in seconds for one {piece} of a backend, and for the oracle's results."
    return option(seconds, help_text, section=HOW, allowed=TIMEOUT, shown=True, **more)
