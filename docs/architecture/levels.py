"""The imports between modules, as read from the source, and the rule that they must follow.

The packages of ``harness/`` have levels. A file may import only from its own package and from
packages on lower levels. Circular imports are not allowed, not even inside functions or for types.
No file in ``harness/`` imports a backend or a framework. A backend imports only its framework and
:mod:`harness.extend`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# The levels from the top. Packages on the same level do not import each other.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("api",),
    ("commands", "suite", "extend"),
    ("fuzz", "completion_values"),
    ("report", "demo", "porting", "scaffold"),
    ("training", "given", "comparison", "upstream"),
    ("timing", "checking", "convert", "defaults"),
    ("results",),
    ("oracle", "worker"),
    ("text", "environments", "cluster", "caching"),
    ("language", "runtime"),
    ("program",),
    ("command",),
    ("runs",),
    ("output",),
    ("files",),
    ("arrays", "errors"),
)
LEVEL: Mapping[str, int] = {
    name: len(LEVELS) - number for number, names in enumerate(LEVELS) for name in names
}
# The frameworks that each family of backends may import.
FRAMEWORKS: Mapping[str, frozenset[str]] = {
    "numpy": frozenset(),
    "torch": frozenset({"torch"}),
    "jax": frozenset({"jax", "jaxlib", "optax", "flax"}),
    "keras": frozenset({"keras", "tensorflow", "torch", "jax"}),
    "onnx": frozenset({"onnx", "onnxruntime", "google"}),
    "onnxruntime": frozenset({"onnx", "onnxruntime"}),
    "array_api_strict": frozenset({"array_api_strict"}),
    "pytensor": frozenset({"pytensor"}),
}
# Other families whose modules a family of backends may import: Keras backends run on JAX or torch,
# and onnxruntime runs the graphs of the format onnx.
SIBLINGS: Mapping[str, frozenset[str]] = {
    "keras": frozenset({"jax", "torch"}),
    "onnxruntime": frozenset({"onnx"}),
}
# Modules of the harness that backends may import, in addition to `harness.extend`.
PUBLIC = frozenset({"harness", "harness.backends"})
CONTRACT = "harness.extend"
# Libraries that print, or read the command line.
SPEAKERS = frozenset({"click", "rich"})
SPEAKING = frozenset(
    {
        *(
            "cli",
            "commands",
            "completion",
            "completion_values",
            "console",
            "declared",
            "folding",
            "help",
        ),
        *("options", "printing", "progress", "ranges", "report", "table", "verbs"),
    }
)


@dataclass(frozen=True)
class Import:
    """An import of a module, or of a name in the module."""

    file: str  # relative to the root of the repository
    line: int
    source: str  # the module that imports
    target: str  # the module that is imported

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def modules(root: Path) -> dict[str, Path]:
    """Return the files in ``harness/`` and ``backends/``, by the name of the module."""
    found = {}
    for folder, package in (("harness", "harness"), ("backends", "harness.backends")):
        for path in sorted((root / folder).rglob("*.py")):
            parts = [package, *path.relative_to(root / folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> list[Import]:
    """Return all imports of all files, also inside functions and for types."""
    known = modules(root)
    return [
        Import(str(path.relative_to(root)), line, module, target)
        for module, path in known.items()
        for line, target in _targets(module, path, known)
    ]


def _targets(module: str, path: Path, known: Mapping[str, Path]) -> Iterator[tuple[int, str]]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in known else base
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A string that names a module, e.g. in import_module("..."), or "module:function".
            named = node.value.partition(":")[0]
            if named.startswith("harness.") and named in known and named != "harness.backends":
                yield node.lineno, named


def package(module: str) -> str:
    """Return the package of a module in ``harness/``, or its name if it is a file of the root."""
    return module.split(".")[1] if "." in module else "harness"


def broken(found: Iterable[Import]) -> list[str]:
    """Return a message for each import that breaks the rule."""
    told = []
    for one in found:
        reason = _reason(one)
        if reason:
            told.append(f"{one}: {reason}")
    return told


def _reason(one: Import) -> str:
    if one.source.startswith("harness.backends"):
        return _of_a_backend(one)
    top = one.target.partition(".")[0]
    if one.target.startswith("harness.backends"):
        return "the harness names no backend; backends are found through their entry points"
    if any(top in names for names in FRAMEWORKS.values()):
        return "the harness imports no framework; a backend does"
    if top in SPEAKERS and one.source.rpartition(".")[2] not in SPEAKING:
        return f"only {', '.join(sorted(SPEAKING))} print and read options"
    if top != "harness" or "harness" in (one.source, one.target):
        return ""
    own, other = package(one.source), package(one.target)
    if own == other:
        return ""
    for name in (own, other):
        if name not in LEVEL:
            return f"{name} has no level in docs/architecture/levels.py"
    if LEVEL[other] >= LEVEL[own]:
        return f"{own} may import from lower levels only, and {other} is on none of them"
    return ""


def _of_a_backend(one: Import) -> str:
    family, top = one.file.split("/")[1], one.target.partition(".")[0]
    if family.endswith(".py"):
        return ""
    if any(top in names for names in FRAMEWORKS.values()):
        allowed = FRAMEWORKS[family]
        return "" if top in allowed else f"a backend of {family} imports its own framework only"
    if one.target.startswith("harness.backends."):
        other = one.target.split(".")[2]
        if other != family and other not in SIBLINGS.get(family, ()):
            return f"a backend of {family} imports nothing of {other}"
    elif top == "harness" and one.target not in PUBLIC and not one.target.startswith(CONTRACT):
        return "a backend imports harness.extend, where all is that it may use"
    return ""


def circles(found: Iterable[Import]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or indirectly."""
    arrows: dict[str, set[str]] = {}
    for one in found:
        if one.source != one.target and one.target.startswith("harness."):
            arrows.setdefault(one.source, set()).add(one.target)
    reach = {module: _reached(module, arrows) for module in arrows}
    groups = {
        tuple(sorted(n for n in reach[module] if module in reach.get(n, ()))) for module in arrows
    }
    return sorted(list(group) for group in groups if group)


def _reached(start: str, arrows: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in arrows.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen
