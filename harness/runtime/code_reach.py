"""The modules that a module can reach, read from its source: nothing is imported.

A backend among others of one distribution depends on what it imports, and not on its neighbours.
Where the source does not tell what it imports, all counts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.files.user_file import FileFault, read_bytes

MOST = 1 << 24
# What runs code that no import names.
BUILT_IN = frozenset({"__import__", "exec", "eval"})
UNTOLD = frozenset(
    {
        *("spec_from_file_location", "run_path", "run_module", "load_module", "iter_modules"),
        *("walk_packages", "exec_module"),
    }
)
IMPORTERS = frozenset({"import_module", "find_spec", "resolve_name"})


HIDDEN = UNTOLD | IMPORTERS


class Untold(Exception):
    """A file may import what its source does not name."""


def imported(path: Path, package: str) -> set[str]:
    """The modules that a file of a package may import, whether they are there or not.

    Raises:
        Untold: it runs or imports what its text does not tell, or cannot be read.
    """
    try:
        tree = ast.parse(read_bytes(path, MOST, "code"))
    except (FileFault, OSError, SyntaxError, ValueError) as fault:
        raise Untold(str(fault)) from None
    found: set[str] = set()
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= set(_from(node, package))
            _check_renamed(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # As import_module("...") has it, and "module:function".
            found.add(node.value.partition(":")[0])
            if node.value in HIDDEN:
                raise Untold(f"line {node.lineno} names {node.value}")
        elif isinstance(node, ast.Call):
            _check(node, tree)
        elif isinstance(node, ast.Name | ast.Attribute) and id(node) not in called:
            # Handed on as a value, it may be called with any name.
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in HIDDEN or _name(node) in BUILT_IN:
                raise Untold(f"line {node.lineno} hands {name} on")
    return found


def _check_renamed(node: ast.ImportFrom) -> None:
    """Raises :class:`Untold` where what runs or imports other code gets a name of its own."""
    for alias in node.names:
        if alias.asname and alias.name in HIDDEN | BUILT_IN:
            raise Untold(f"line {node.lineno} calls {alias.name} {alias.asname}")


def _from(node: ast.ImportFrom, package: str) -> Iterator[str]:
    parts = package.split(".")
    above = parts[: len(parts) + 1 - node.level] if node.level else []
    base = ".".join([*above, *filter(None, [node.module])])
    yield base
    yield from (f"{base}.{alias.name}" for alias in node.names)


def _check(call: ast.Call, tree: ast.Module) -> None:
    """Raises :class:`Untold` for a call that imports what the text does not name."""
    built_in = _name(call.func)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else built_in
    of_builtins = isinstance(call.func, ast.Attribute) and _name(call.func.value) == "builtins"
    if name in UNTOLD or built_in in BUILT_IN or (of_builtins and name in BUILT_IN):
        raise Untold(f"line {call.lineno} calls {name}")
    if name in IMPORTERS and not (call.args and _is_text(call.args[0], tree)):
        raise Untold(f"line {call.lineno} imports by a name that is computed")


def _is_text(value: ast.expr, tree: ast.Module) -> bool:
    """Whether a value is a text that stands in the source, if need be under a name."""
    if isinstance(value, ast.Constant):
        return isinstance(value.value, str) and not value.value.startswith(".")
    if isinstance(value, ast.IfExp):
        return _is_text(value.body, tree) and _is_text(value.orelse, tree)
    values = _bound(_name(value), tree.body)
    return (
        bool(values)
        and all(isinstance(v, ast.Constant | ast.IfExp) for v in values)
        and all(_is_text(v, tree) for v in values)
    )


def _bound(name: str, body: Sequence[ast.stmt]) -> list[ast.expr]:
    return [
        statement.value
        for statement in body
        if isinstance(statement, ast.Assign)
        and any(_name(target) == name for target in statement.targets)
    ]


def _name(value: ast.expr) -> str:
    return value.id if isinstance(value, ast.Name) else ""
