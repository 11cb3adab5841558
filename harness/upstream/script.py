"""Script that shows a difference with numpy and one framework: its text, and its run."""

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
# Seconds that a script may take; it imports a framework and compiles a model.
PATIENCE = 300.0
# Default limit of resident bytes, including child processes.
MEMORY = 8 << 30
# Number of processes in which a script must agree before it counts as not reproducing.
RUNS = 3
# Maximum characters kept of the output.
KEPT = 20_000
# Names that the script defines in addition to the model.
OWN = frozenset(
    {
        *("sys", "np", "os", "Path", "FOLDER", "ALLOWED", "FILLED"),
        *("run", "fill_freed_memory", "error_of", "main"),
    }
)
# Passes of the script; before each, it fills freed memory with a different number.
PASSES = 4
# Text that the script prints for a result that is right in some passes only.
VARIES = " passes on the same numbers"


@dataclass(frozen=True)
class Shown:
    """The outcome of a script's run; ``code`` is None if it took too long or too much memory.

    ``runs`` counts the processes; all before the last one agreed.
    """

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
    """Return the whole text of the script.

    Raises:
        UsageError: the model has a name that the script needs itself.
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
    """Return the names that a module's text defines at its top level."""
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
    """Run a folder's script in fresh processes until one does not agree, :data:`RUNS` at most.

    A kernel that reads uninitialised memory may be right in one process by luck.
    """
    for number in range(1, RUNS + 1):
        shown = replace(run(folder, python, environment, memory), runs=number)
        if shown.code != 0:
            break
    return shown


def run(
    folder: Path, python: str, environment: Mapping[str, str], memory: int | None = None
) -> Shown:
    """Run the script of a folder alone, under a guardian; ``memory`` is in resident bytes."""
    # Resolve the interpreter here, because PYTHONPATH may be relative to the run's folder.
    command = [shutil.which(python) or python, "-P", str(folder / FILE)]
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    ended = exchange.run(command, variables, PATIENCE, memory or MEMORY)
    separator = "\n" if ended.cause and ended.printed[-1:] not in ("", "\n") else ""
    return Shown(ended.code, f"{ended.printed[-KEPT:]}{separator}{ended.cause}")
