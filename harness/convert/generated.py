"""Generated source files, run for a check as a user would run them, once they are vetted."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from harness.convert.source.vetting import Words, vetted
from harness.errors import UsageError
from harness.files.user_file import FileFault, read_bytes

# A file of a thousand layers has a tenth of it.
LIMIT = 1 << 24


def run_file(path: Path, words: Words) -> ModuleType:
    """The module that a file's text makes; nothing is kept of it, in memory or on disk.

    Raises:
        UsageError: there is no such file, or it has something in it that no export writes.
    """
    if not path.is_file():
        raise UsageError(f"there is no {path.name} beside {path.with_suffix('').name}'s weights")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        text = read_bytes(path, LIMIT, "a module").decode("utf-8", "replace")
    except FileFault as fault:
        raise UsageError(str(fault)) from None
    exec(compile(vetted(text, words, path.name), str(path), "exec"), module.__dict__)
    return module
