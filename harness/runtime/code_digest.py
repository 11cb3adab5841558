"""Compute a checksum of a module's code without importing the module. It shows whether the code of
a backend has changed.

A version number does not show this: an editable installation keeps its version.
"""

from __future__ import annotations

import ast
import hashlib
import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

from harness.files.user_file import FileFault, read_bytes

# The checksum covers the modules of a distribution that the backend imports. If the source code
# does not show all imports, the checksum covers all modules of the distribution.

MOST_SOURCE = 1 << 24
# Built-in functions that run or import code without an import statement.
BUILT_IN = frozenset({"__import__", "exec", "eval"})
RUNS_CODE = frozenset(
    {
        *("spec_from_file_location", "run_path", "run_module", "load_module", "iter_modules"),
        *("walk_packages", "exec_module"),
    }
)
IMPORTERS = frozenset({"import_module", "find_spec", "resolve_name"})


HIDDEN = RUNS_CODE | IMPORTERS


class HiddenImports(Exception):
    """Error: it is not known which modules a file imports, because its source code does not name
    all of them."""


def imported_modules(path: Path, package: str) -> set[str]:
    """Return the names of the modules that a file of ``package`` may import. Some of these modules
    may not exist.

    Raises:
        HiddenImports: the file cannot be read, or runs or imports code that its text does not name.
    """
    try:
        tree = ast.parse(read_bytes(path, MOST_SOURCE, "code"))
    except (FileFault, OSError, SyntaxError, ValueError) as fault:
        raise HiddenImports(str(fault)) from None
    modules: set[str] = set()
    # Calls of importing functions whose argument is a string in the source. If such a function is
    # passed on as a value instead, other code may call it with any name.
    named_calls = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node.args and _is_text(node.args[0], tree)
        if _name_of(node.func) in IMPORTERS
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            modules |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
            if any(alias.asname and alias.name in HIDDEN | BUILT_IN for alias in node.names):
                raise HiddenImports(f"line {node.lineno} gives what imports a name of its own")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # The argument of import_module("..."), or "module:function".
            modules.add(node.value.partition(":")[0])
            if node.value in HIDDEN:
                raise HiddenImports(f"line {node.lineno} names {node.value}")
        elif isinstance(node, ast.Name | ast.Attribute) and id(node) not in named_calls:
            of_builtins = isinstance(node, ast.Name) or _name_of(node.value) == "builtins"
            if _name_of(node) in HIDDEN or (of_builtins and _name_of(node) in BUILT_IN):
                raise HiddenImports(f"line {node.lineno} uses {_name_of(node)}")
    return modules


def _is_text(value: ast.expr, tree: ast.Module) -> bool:
    """Return whether an expression is a string literal, or a name that is assigned only string
    literals at the top level of the module ``tree``."""
    if isinstance(value, ast.Constant):
        return isinstance(value.value, str) and not value.value.startswith(".")
    if isinstance(value, ast.IfExp):
        return _is_text(value.body, tree) and _is_text(value.orelse, tree)
    if not isinstance(value, ast.Name):
        return False
    values = [
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and value.id in map(_name_of, statement.targets)
    ]
    return bool(values) and all(
        isinstance(v, ast.Constant | ast.IfExp) and _is_text(v, tree) for v in values
    )


def _name_of(value: ast.expr) -> str:
    """Return the last name in an expression such as ``name`` or ``a.name``; return an empty text
    for other expressions."""
    match value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


MOST = 1 << 28
# The checksum covers the content of data files of up to this many bytes. Of larger files it covers
# only size and time of change.
MOST_DATA = 1 << 20
CODE = (".py", *EXTENSION_SUFFIXES)
_HARNESS = __name__.partition(".")[0]


def digest(module: str, siblings: Collection[str] = ()) -> str:
    """Return the sha256 checksum (hex) of a module's code; return an empty text if no code is
    found.

    For a module in a top-level package, the checksum covers all files of that package. For a module
    in a package inside another package, it covers the module, the modules that it imports directly
    or indirectly, and their data files. If the source does not show the imports, it covers all
    files of the packages.

    ``siblings`` are other top-level modules and packages of the same distribution. The checksum
    also covers all files of those siblings that the module imports. If the source does not show the
    imports, it covers all siblings. Of compiled extensions, and of data files above 1 MiB, it
    covers only the size and the time of the last change.
    """
    name = module.partition(":")[0]
    specs = _find_specs(name)
    try:
        files = _dependency_files(name, specs)
    except HiddenImports:
        files = dict.fromkeys(path for spec in specs for path in _files(spec))
    files |= _sibling_files(files, {*siblings} - {name.partition(".")[0], _HARNESS})
    checksum = hashlib.sha256()
    for path in files:
        checksum.update(os.fsencode(path.name) + b"\0")
        try:
            checksum.update(_content_digest(path))
        except (FileFault, OSError) as fault:  # no file, or gone a moment ago
            checksum.update(str(fault).encode())
    return checksum.hexdigest() if files else ""


def _content_digest(path: Path) -> bytes:
    if path.suffix == ".py":
        return hashlib.sha256(read_bytes(path, MOST, "code")).digest()
    status = path.stat()
    if path.name.endswith(CODE) or status.st_size > MOST_DATA:
        return f"{status.st_size} {status.st_mtime_ns}".encode()
    return hashlib.sha256(read_bytes(path, MOST_DATA, "data")).digest()


def _dependency_files(name: str, specs: Sequence[ModuleSpec]) -> dict[Path, None]:
    """Return the files on which the module ``name`` depends, within its own package. ``specs`` has
    the location of each part of its dotted name.

    These are the module's file, the modules that it imports directly or indirectly, the packages
    that contain them, and the data files in their folders. A module of the harness is a special
    case: its own package is only its part of the harness (e.g. ``harness.backends``), because the
    harness has a separate checksum.

    Raises:
        HiddenImports: a file's source does not show its imports, or the module is not in a package
            inside another package.
    """
    packages = [spec.name for spec in specs if spec.submodule_search_locations is not None]
    if len(packages) < 2:
        raise HiddenImports(name)
    top, second, *_ = name.split(".")
    part = f"{top}.{second}" if top == _HARNESS else top
    files: dict[Path, None] = {}
    seen: set[str] = set()
    waiting = [name, *packages]
    while waiting:
        module = waiting.pop()
        chain = [] if module in seen else _find_specs(module)
        seen.add(module)
        if not chain or not chain[-1].has_location or chain[-1].origin is None:
            continue
        path = Path(chain[-1].origin)
        files[path] = None
        if path.suffix == ".py":
            is_package = chain[-1].submodule_search_locations is not None
            package = module if is_package else module.rpartition(".")[0]
            waiting += _modules_within(imported_modules(path, package), part)
    data = (path for folder in {path.parent for path in files} for path in _data_files(folder))
    return dict.fromkeys(sorted([*files, *data]))


def _modules_within(names: Iterable[str], part: str) -> Iterator[str]:
    """Yield those of the module names that are inside the package ``part``, and the names of their
    parent packages."""
    for name in names:
        words = name.split(".")
        if name.startswith(f"{part}.") and all(word.isidentifier() for word in words):
            least = part.count(".") + 2
            yield from (".".join(words[:count]) for count in range(least, len(words) + 1))


def _sibling_files(files: Iterable[Path], tops: set[str]) -> dict[Path, None]:
    """Return the files of those top-level modules of ``tops`` that ``files`` import, directly or
    indirectly.

    If a file does not show its imports, return the files of all modules of ``tops``.
    """
    found_files: dict[Path, None] = {}
    waiting = list(files) if tops else []
    while waiting and tops:
        path = waiting.pop()
        if path.suffix != ".py":
            continue
        try:
            imported = {name.partition(".")[0] for name in imported_modules(path, "")} & tops
        except HiddenImports:
            imported = set(tops)
        tops -= imported
        more = [
            file for top in sorted(imported) for spec in _find_specs(top) for file in _files(spec)
        ]
        found_files |= dict.fromkeys(more)
        waiting += more
    return dict.fromkeys(sorted(found_files))


def _find_specs(name: str) -> list[ModuleSpec]:
    """Return the import spec (the location) of each part of a dotted name, e.g. of ``a`` and
    ``a.b``; return [] if a part does not exist."""
    specs_found: list[ModuleSpec] = []
    path = None
    words = name.split(".")
    for count in range(1, len(words) + 1):
        full = ".".join(words[:count])
        # importlib.util.find_spec would import the parent packages, which run foreign code.
        specs = (finder.find_spec(full, path) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            return []
        specs_found.append(spec)
        path = list(spec.submodule_search_locations or ())
    return specs_found


def _files(spec: ModuleSpec) -> list[Path]:
    """Return the file of a module, or the files of a package, sorted.

    The files of a package are its code and its data files; for a package of the harness, only its
    code.
    """
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    if not folders and spec.origin is not None and spec.has_location:
        return [Path(spec.origin)]
    return sorted(
        path
        for folder in folders
        for path in _walk_files(folder, into_packages=True)
        if path.name.endswith(CODE) or (spec.name != _HARNESS and _is_data(path))
    )


def _data_files(folder: Path) -> Iterator[Path]:
    return (path for path in _walk_files(folder, into_packages=False) if _is_data(path))


def _walk_files(folder: Path, *, into_packages: bool) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            each
            for each in folders
            if each != "__pycache__"
            and not each.startswith(".")
            and (into_packages or not Path(parent, each, "__init__.py").exists())
        ]
        yield from (Path(parent, name) for name in names)


def _is_data(path: Path) -> bool:
    """Return whether a file is data that code may read, i.e. neither source code nor compiled
    code."""
    if path.name.endswith((*CODE, ".pyc")) or path.name.startswith("."):
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a broken link
        return False
