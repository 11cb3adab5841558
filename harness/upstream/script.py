"""A script that shows a difference with numpy and one framework: its text, and its run."""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.convert.formats import Script
from harness.convert.source.document import docstring
from harness.convert.source.literals import text, told
from harness.errors import UsageError
from harness.worker import program

FILE, ARRAYS = "reproduce.py", "reproduce.npz"
# Seconds that a script may take: it imports a framework and compiles a model.
PATIENCE = 300.0
# Resident bytes that it may take, with all that it starts, if nobody says otherwise.
MEMORY = 8 << 30
# Characters of what it prints that are kept.
KEPT = 20_000
# What the script itself defines beside the model.
OWN = frozenset({"sys", "np", "os", "Path", "FOLDER", "ALLOWED", "run", "error_of", "main"})
HEAD = """import sys
from pathlib import Path

import numpy as np
"""
MAIN = '''def error_of(found, expected):
    """The largest difference; NaN and infinity are right where they are expected."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(all="ignore"):
        gap = np.where(same, 0.0, np.abs(found - expected))
    return np.inf if np.isnan(gap).any() else float(gap.max(initial=0.0))


def main():
    """Print how far each result is off; 1 if one differs, else 0."""
    groups = {"inputs": {}, "state": {}, "cotangents": {}, "expected": {}}
    with np.load(FOLDER / "reproduce.npz") as arrays:
        for key in arrays.files:
            group, name = key.split("/", 1)
            groups[group][name] = arrays[key]
    found = run(groups["inputs"], groups["state"], groups["cotangents"])
    wrong = 0
    for name, allowed in ALLOWED.items():
        expected = groups["expected"][name]
        actual = np.asarray(found[name], np.float64)
        if actual.shape != expected.shape:
            print(f"{name}: DIFFERS, its shape is {actual.shape}, expected {expected.shape}")
            wrong += 1
            continue
        error = error_of(actual, expected)
        verdict = "agrees" if error <= allowed else "DIFFERS"
        print(f"{name}: {verdict}, off by {error:.2e} (rounding explains {allowed:.2e})")
        if error > allowed:
            wrong += 1
            at = np.unravel_index(np.argmax(np.abs(actual - expected)), expected.shape)
            where = ", ".join(map(str, at))
            print(f"  at [{where}]: expected {expected[at]:.9g}, actual {actual[at]:.9g}")
    print(f"{wrong} of {len(ALLOWED)} results differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
'''


@dataclass(frozen=True)
class Shown:
    """The outcome of a script's run: the exit code, None if it took too long or too much memory,
    and what it printed."""

    code: int | None
    printed: str


def composed(
    title: str,
    framework: str,
    made: Script,
    allowed: Mapping[str, float],
    environment: Mapping[str, str],
) -> str:
    """The whole text.

    Raises:
        UsageError: the model has a name that the script needs for itself.
    """
    taken = sorted(_defined(made.module) & OWN)
    if taken:
        raise UsageError(f"the model has something named {taken[0]}, as the script has itself")
    lines = docstring(
        [
            f"{title}.",
            "",
            f"Needs numpy and {told(framework)} alone, and the files beside it. It prints how far",
            "each result is from the expected one, and exits with 1 if one differs.",
        ]
    )
    parts = ["\n".join([*lines, ""])]
    if environment:
        pairs = [f"os.environ.setdefault({text(n)}, {text(v)})" for n, v in environment.items()]
        parts.append("\n".join(["import os", "", *pairs, ""]))
    limits = [f"    {text(name)}: {float(limit)!r}," for name, limit in allowed.items()]
    numbers = ["# By how much rounding may change each result.", "ALLOWED = {", *limits, "}", ""]
    folder = "FOLDER = Path(__file__).resolve().parent\n"
    parts += [HEAD, _without_docstring(made.module), folder + "\n".join(numbers)]
    return "\n".join(parts) + f"\n\n{made.source}\n\n{MAIN}"


def _defined(module: str) -> set[str]:
    """What a module's text defines at its top."""
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


def run(
    folder: Path, python: str, environment: Mapping[str, str], memory: int | None = None
) -> Shown:
    """Run the script of a folder by itself, as whoever gets it would.

    It runs as a worker does, under a guardian. ``memory`` is in resident bytes.
    """
    # Found now, as a shell would, and in the folder of the run: PYTHONPATH may be relative to it.
    command = [shutil.which(python) or python, "-P", str(folder / FILE)]
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    ended = program.run(command, variables, PATIENCE, memory or MEMORY)
    separator = "\n" if ended.cause and ended.printed[-1:] not in ("", "\n") else ""
    return Shown(ended.code, f"{ended.printed[-KEPT:]}{separator}{ended.cause}")
