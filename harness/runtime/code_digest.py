"""The code that a module is made of, as one checksum, found without importing anything.

A version does not tell whether code has changed: what is installed editable keeps its version.
"""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

from harness.files.user_file import FileFault, read_bytes

MOST = 1 << 28


def digest(module: str) -> str:
    """The sha256 (hex) of a module's code, "" where there is none to be found.

    That is the module's file, and all files of every package that it is part of, which may lie in
    different folders. Compiled extensions count by size and time of change.
    """
    specs = _find(module.partition(":")[0])
    found = hashlib.sha256()
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
