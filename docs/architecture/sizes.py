"""Print the size of each package: lines, lines of code, files, and two signs of bad structure.

Run ``python docs/architecture/sizes.py``. CI prints the same table, which shows how much a change
adds. Lines of code do not include blank lines, comments and docstrings. The signs are files that
only one module imports (these could be merged), and annotations without precise types.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path

from levels import imports, modules, package

ROOT = Path(__file__).parents[2]
UNTYPED = re.compile(r"\b(?:Mapping|dict)\[str, Any\]")
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass
class Size:
    """The size of a package. ``untyped`` is the number of ``dict[str, Any]`` and ``Mapping[str,
    Any]`` in it."""

    lines: int = 0
    code: int = 0
    files: int = 0
    single_importer: int = 0
    untyped: int = 0

    def add(self, other: Size) -> None:
        for field in fields(self):
            value = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, value)


def code_lines(text: str) -> int:
    """Count the lines of a source that contain code."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            found |= set(range(token.start[0], token.end[0] + 1))
    return len(found - docstrings)


def package_sizes(root: Path = ROOT) -> dict[str, Size]:
    """Return the size of each package of ``harness/`` and of ``backends/``, by name."""
    importers: dict[str, set[str]] = defaultdict(set)
    for one in imports(root):
        if one.source != one.target:
            importers[one.target].add(one.source)
    sizes: dict[str, Size] = defaultdict(Size)
    for module, path in modules(root).items():
        text = path.read_text(encoding="utf-8")
        single = len(importers[module]) == 1 and path.name != "__init__.py"
        untyped = len(UNTYPED.findall(text))
        size = Size(len(text.splitlines()), code_lines(text), 1, int(single), untyped)
        name = "backends" if module.startswith("harness.backends") else package(module)
        sizes[name].add(size)
    return dict(sizes)


def table(sizes: dict[str, Size]) -> str:
    """Return the sizes as a table, with the largest package first and the sum for ``harness/``."""
    whole = Size()
    for name, size in sizes.items():
        if name != "backends":
            whole.add(size)
    rows = [("package", "lines", "code", "files", "1 importer", "[str, Any]")]
    ordered = sorted(sizes.items(), key=lambda item: -item[1].lines)
    for name, size in [*ordered, ("harness/ in all", whole)]:
        rows.append((name, *(f"{getattr(size, field.name):,}" for field in fields(size))))
    return "\n".join(
        f"{row[0]:<17}" + "".join(f"{cell:>12}" for cell in row[1:]).rstrip() for row in rows
    )


if __name__ == "__main__":
    sys.stdout.write(table(package_sizes()) + "\n")
