"""A script that shows a difference with numpy and one framework: its text, and its run."""

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
from harness.worker import exchange

FILE, ARRAYS = "reproduce.py", "reproduce.npz"
# Seconds that a script may take: it imports a framework and compiles a model.
PATIENCE = 300.0
# Resident bytes that it may take, with all that it starts, if nobody says otherwise.
MEMORY = 8 << 30
# Processes in which a script must agree before it counts as one that does not show the difference.
RUNS = 3
# Characters of what it prints that are kept.
KEPT = 20_000
# What the script itself defines beside the model.
OWN = frozenset(
    {
        *("sys", "np", "os", "Path", "FOLDER", "ALLOWED", "FILLED"),
        *("run", "fill_freed_memory", "error_of", "main"),
    }
)
HEAD = """import sys
from pathlib import Path

import numpy as np
"""
MAIN = '''def fill_freed_memory(value):
    """Write a number into memory and free it: a kernel may read there what it has not written."""
    if value is not None:
        blocks = [np.full(2**n, value, np.float32) for n in range(4, 17) for _ in range(4)]
        del blocks


def error_of(found, expected):
    """The largest difference; NaN and infinity are right where they are expected."""
    if found.shape != expected.shape:
        return np.inf
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(all="ignore"):
        gap = np.where(same, 0.0, np.abs(found - expected))
    return np.inf if np.isnan(gap).any() else float(gap.max(initial=0.0))


def main():
    """Print how far each result is off in the worst of several passes; 1 if one differs, else 0."""
    groups = {"inputs": {}, "state": {}, "cotangents": {}, "expected": {}}
    with np.load(FOLDER / "reproduce.npz") as arrays:
        for key in arrays.files:
            group, name = key.split("/", 1)
            groups[group][name] = arrays[key]
    errors, worst = {name: [] for name in ALLOWED}, {}
    for value in FILLED:
        fill_freed_memory(value)
        found = run(groups["inputs"], groups["state"], groups["cotangents"])
        for name in ALLOWED:
            actual = np.array(found[name], np.float64)
            error = error_of(actual, groups["expected"][name])
            if error >= max(errors[name], default=0.0):
                worst[name] = actual
            errors[name].append(error)
    wrong = 0
    for name, allowed in ALLOWED.items():
        actual, expected, error = worst[name], groups["expected"][name], max(errors[name])
        if actual.shape != expected.shape:
            print(f"{name}: DIFFERS, its shape is {actual.shape}, expected {expected.shape}")
            wrong += 1
            continue
        verdict = "agrees" if error <= allowed else "DIFFERS"
        count = sum(e > allowed for e in errors[name])
        if 0 < count < len(FILLED):
            verdict += f" in {count} of {len(FILLED)} passes on the same numbers"
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
# The script's own name of the numbers that it fills freed memory with, one for each pass.
FILLED = 'FILLED = (None, 1000.0, float("nan"), 1000.0)'
PASSES = 4
# What it prints of a result that is right in some passes only.
VARIES = " passes on the same numbers"


@dataclass(frozen=True)
class Shown:
    """The outcome of a script's run: the exit code, None if it took too long or too much memory,
    and what it printed. ``runs`` counts the processes; those before the last one agreed."""

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
    numbers = ["# By how much rounding may change each result.", "ALLOWED = {", *limits, "}"]
    numbers += ["# Freed memory is filled with one of these before each pass.", FILLED, ""]
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


def run_until_it_differs(
    folder: Path, python: str, environment: Mapping[str, str], memory: int | None = None
) -> Shown:
    """Run the script of a folder in fresh processes until one does not agree, :data:`RUNS` at most.

    A kernel that reads memory which it has not written may be right in one process by luck.
    """
    for number in range(1, RUNS + 1):
        shown = replace(run(folder, python, environment, memory), runs=number)
        if shown.code != 0:
            break
    return shown


def run(
    folder: Path, python: str, environment: Mapping[str, str], memory: int | None = None
) -> Shown:
    """Run the script of a folder by itself, as whoever gets it would.

    It runs as a worker does, under a guardian. ``memory`` is in resident bytes.
    """
    # Found now, as a shell would, and in the folder of the run: PYTHONPATH may be relative to it.
    command = [shutil.which(python) or python, "-P", str(folder / FILE)]
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    ended = exchange.run(command, variables, PATIENCE, memory or MEMORY)
    separator = "\n" if ended.cause and ended.printed[-1:] not in ("", "\n") else ""
    return Shown(ended.code, f"{ended.printed[-KEPT:]}{separator}{ended.cause}")
