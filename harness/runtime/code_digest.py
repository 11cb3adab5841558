"""The code that a module is made of, as one checksum, found without importing anything.

A version does not tell whether code has changed: what is installed editable keeps its version.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

from harness.files.user_file import FileFault, read_bytes
from harness.runtime.code_reach import Untold, imported

MOST = 1 << 28


def digest(module: str) -> str:
    """The sha256 (hex) of a module's code, "" where there is none to be found.

    That is the module's file, and all files of every package that it is part of, which may lie in
    different folders; of a package in another one only what the module can reach, where its source
    tells. Compiled extensions count by size and time of change.
    """
    name = module.partition(":")[0]
    specs = _find(name)
    found = hashlib.sha256()
    try:
        files = _reached(name, specs)
    except Untold:
        files = dict.fromkeys(path for spec in specs for path in _files(spec))
    for path in files:
        try:
            found.update(os.fsencode(path.name) + b"\0")
            if path.suffix == ".py":
                found.update(hashlib.sha256(read_bytes(path, MOST, "code")).digest())
            else:
                status = path.stat()
                found.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        except (FileFault, OSError) as fault:  # no file, or gone a moment ago
            found.update(str(fault).encode())
    return found.hexdigest() if files else ""


def _reached(name: str, specs: Sequence[ModuleSpec]) -> dict[Path, None]:
    """The file of a module, those of the modules of the same part of its package that it imports,
    directly or by way of others, and of the packages that are run on the way.

    Of the harness itself, nothing: it has a checksum of its own.

    Raises:
        Untold: what a file imports does not stand in it; or there is one package only.
    """
    packages = [spec.name for spec in specs if spec.submodule_search_locations is not None]
    if len(packages) < 2:
        raise Untold(name)
    top, second, *_ = name.split(".")
    part = f"{top}.{second}" if top == __name__.partition(".")[0] else top
    found: dict[Path, None] = {}
    seen: set[str] = set()
    waiting = [name, *packages]
    while waiting:
        one = waiting.pop()
        chain = [] if one in seen else _find(one)
        seen.add(one)
        if not chain or not chain[-1].has_location or chain[-1].origin is None:
            continue
        path = Path(chain[-1].origin)
        found[path] = None
        if path.suffix == ".py":
            is_package = chain[-1].submodule_search_locations is not None
            package = one if is_package else one.rpartition(".")[0]
            waiting += _within(imported(path, package), part)
    return dict.fromkeys(sorted(found))


def _within(names: Iterable[str], part: str) -> Iterator[str]:
    """The modules of a part of a package that are named, and the packages on the way to them."""
    for name in names:
        words = name.split(".")
        if name.startswith(f"{part}.") and all(word.isidentifier() for word in words):
            least = part.count(".") + 2
            yield from (".".join(words[:count]) for count in range(least, len(words) + 1))


def _find(name: str) -> list[ModuleSpec]:
    """Of each part of a dotted name, where it is; empty if a part is missing."""
    found: list[ModuleSpec] = []
    path = None
    words = name.split(".")
    for count in range(1, len(words) + 1):
        full = ".".join(words[:count])
        # importlib.util.find_spec would import the parents, which are a stranger's code.
        specs = (finder.find_spec(full, path) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            return []
        found.append(spec)
        path = list(spec.submodule_search_locations or ())
    return found


def _files(spec: ModuleSpec) -> list[Path]:
    """The files of a package, sorted; of a module its own."""
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    if not folders and spec.origin is not None and spec.has_location:
        return [Path(spec.origin)]
    suffixes = (".py", *EXTENSION_SUFFIXES)
    return sorted(
        Path(parent) / name
        for folder in folders
        for parent, _, names in os.walk(folder)
        for name in names
        if name.endswith(suffixes)
    )
