"""The files of a new backend's package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.command.outcome import CommandResult
from harness.errors import UsageError
from harness.files.atomic import staging
from harness.files.user_file import displayed
from harness.output.templates import filled
from harness.runtime.plugins import available
from harness.scaffold.options import NewBackendOptions

NAME = re.compile("[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?", re.ASCII)


def run_new_backend(options: NewBackendOptions) -> CommandResult:
    """Write the package of a new backend to a new folder.

    Raises:
        UsageError: the name is not allowed, or the folder exists or cannot be written.
    """
    folder = Path(f"harness-{options.name}")
    _check(options, folder)
    module = f"harness_{options.name}"
    texts = _texts(options, module)
    try:
        with staging(folder.absolute()) as temporary:
            complete = temporary / folder.name
            complete.mkdir()
            for name, text in texts.items():
                (complete / name).write_text(text, encoding="utf-8")
            complete.rename(folder)
    except OSError as error:
        raise UsageError(f"cannot write {displayed(folder)}: {error.strerror}") from None
    data = {"folder": str(folder), "files": list(texts)}
    text = filled(
        "harness.scaffold", "next.txt", backend=options.name, folder=folder, module=module
    )
    return CommandResult(data, text.removesuffix("\n"), wrap=False)


def _check(options: NewBackendOptions, folder: Path) -> None:
    name = options.name
    if not NAME.fullmatch(name):
        raise UsageError(
            f"NAME is {name!r}; expected ASCII letters, digits and _, starting with a letter and "
            "ending with a letter or digit"
        )
    if name in (found := available()):
        raise UsageError(
            f"backend {name!r} is installed already (by {found[name].distribution}): choose a "
            "different NAME"
        )
    if options.graph and options.lazy:
        raise UsageError("--graph and --lazy cannot be combined: choose one")
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{displayed(folder)} exists: move it, or choose a different NAME")


def _texts(options: NewBackendOptions, module: str) -> Mapping[str, str]:
    kind = "graph" if options.graph else "lazy" if options.lazy else "eager"
    base = {"graph": "GraphBackend", "lazy": "LazyBackend", "eager": "Backend"}[kind]
    values = {
        "backend": options.name,
        "module": module,
        "kind": kind,
        "base": base,
        "class_name": "".join(part.capitalize() for part in options.name.split("_")),
    }
    return {
        "pyproject.toml": filled("harness.scaffold", "pyproject.toml", **values),
        f"{module}.py": filled("harness.scaffold", "backend.py", **values),
    }
