"""The script that shows a difference with only numpy and one framework: its text, and running
it."""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.convert.formats import Script
from harness.convert.source.document import docstring
from harness.convert.source.literals import text, told
from harness.errors import UsageError
from harness.output.templates import filled
from harness.worker import exchange

FILE, ARRAYS = "reproduce.py", "reproduce.npz"
# A script may take this many seconds, in which it imports a framework and compiles a model.
PATIENCE = 300.0
# Default limit of a script's resident memory in bytes, including its child processes.
MEMORY = 8 << 30
# If a script agrees in this many processes, it does not reproduce the difference.
RUNS = 3
# At most this many characters of the script's output are stored.
KEPT = 20_000
# Names that the script defines in addition to the model.
OWN = frozenset(
    {
        *("sys", "np", "os", "Path", "FOLDER", "ALLOWED", "FILLED"),
        *("run", "fill_freed_memory", "error_of", "main"),
    }
)
# The number of passes in a script. Before three of them, the script fills memory with numbers and
# frees it (``FILLED``).
PASSES = 4
# The script prints this text if a result is right in some passes and wrong in others.
VARIES = " passes on the same numbers"


@dataclass(frozen=True)
class Shown:
    """The outcome of running a script. ``code`` is the exit code; None if the script took too long
    or used too much memory. ``runs`` is the number of processes that ran the script; in all but the
    last, the results agreed."""

    code: int | None
    printed: str
    runs: int = 1


def composed(
    title: str,
    framework: str,
    made: Script,
    allowed: Mapping[str, float],
    environment: Mapping[str, str],
) -> str:
    """Return the complete text of the script.

    Raises:
        UsageError: the model uses a name that the script defines.
    """
    taken = sorted(_defined(made.module) & OWN)
    if taken:
        raise UsageError(f"the model has something named {taken[0]}, as the script has itself")
    lines = [
        f"{title}.",
        "",
        f"Needs numpy and {told(framework)} alone, and the files beside it. It prints how far",
        "each result is from the expected one, and exits with 1 if one differs.",
    ]
    return filled(
        "harness.upstream",
        FILE,
        docstring="\n".join(docstring(lines)),
        environment=[(text(name), text(value)) for name, value in environment.items()],
        module=_without_docstring(made.module),
        allowed=[(text(name), repr(float(limit))) for name, limit in allowed.items()],
        source=made.source,
    )


def _defined(module: str) -> set[str]:
    """Return the names that a module's source defines at its top level."""
    found = set()
    for node in ast.parse(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def _without_docstring(module: str) -> str:
    first, *_ = ast.parse(module).body
    if isinstance(first, ast.Expr):
        module = "\n".join(module.splitlines()[first.end_lineno :])
    return module.strip("\n") + "\n"


def run_until_it_differs(
    folder: Path, python: str, environment: Mapping[str, str], memory: int | None = None
) -> Shown:
    """Run a folder's script in new processes until its results differ, at most :data:`RUNS` times.
    A kernel that reads uninitialised memory may be right in one process by chance."""
    for number in range(1, RUNS + 1):
        shown = replace(run(folder, python, environment, memory), runs=number)
        if shown.code != 0:
            break
    return shown


def run(
    folder: Path, python: str, environment: Mapping[str, str], memory: int | None = None
) -> Shown:
    """Run the script of a folder in a process of its own. A supervisor process ends the script
    after :data:`PATIENCE` seconds, or if its resident memory exceeds ``memory`` bytes."""
    # Resolve the path of the interpreter here, because PYTHONPATH may be relative to the folder in
    # which the script runs.
    command = [shutil.which(python) or python, "-P", str(folder / FILE)]
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    ended = exchange.run(command, variables, PATIENCE, memory or MEMORY)
    separator = "\n" if ended.cause and ended.printed[-1:] not in ("", "\n") else ""
    return Shown(ended.code, f"{ended.printed[-KEPT:]}{separator}{ended.cause}")
