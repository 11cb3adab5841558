"""Generated source files, run for a check as a user would run them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from harness.errors import UsageError


def run_file(path: Path) -> ModuleType:
    """The module that a file's text makes; nothing is kept of it, in memory or on disk."""
    if not path.is_file():
        raise UsageError(f"there is no {path.name} beside {path.with_suffix('').name}'s weights")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    return module
