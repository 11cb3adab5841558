"""The command ``env``: its output and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.command.outcome import CommandResult
from harness.environments import cache, make, wanted
from harness.environments.cache import MadeEnvironment, NoEnvironment
from harness.environments.columns import Columns, choose
from harness.environments.options import EnvOptions
from harness.errors import UsageError
from harness.files.user_file import MIB, displayed
from harness.output.printing import is_silent, tell


def run_env(asked: EnvOptions) -> CommandResult:
    """Make, list or remove environments.

    Raises:
        UsageError: the words do not fit the options.
        NotMade: the environment cannot be made.
    """
    words = asked.words
    if asked.remove:
        if not words:
            raise UsageError("--remove needs the name of an environment; 'harness env' lists them")
        columns = [wanted.environment_name(word) for word in words]
        for column in columns:
            make.find_folder(column)
        removed = [displayed(make.remove(column)) for column in columns]
        return CommandResult({"removed": removed}, "\n".join(f"removed: {one}" for one in removed))
    if not words or asked.list:
        if words:
            raise UsageError(f"--list takes no environment, found {words[0]!r}")
        return _list_environments()
    told = partial(tell, error=True)
    python = asked.python or sys.executable
    found = make.make(wanted.read_request(words), python, told, asked.force)
    lines = (
        f"{_describe_environment(found)}, {_folder_size(found.folder) / MIB:,.0f} MiB",
        f"use it with: --backend {found.about.column}",
        f"same as:     --backend {found.about.column}={found.python}",
    )
    return CommandResult(_environment_record(found), "\n".join(lines))


def choose_or_make(asked: Sequence[str]) -> Columns:
    """Return the requested columns; on a terminal, offer to make missing environments.

    Raises:
        NoEnvironment: environments are missing, and the answer is no or there is no terminal.
        NotMade: an environment cannot be made.
        UsageError: as in :func:`.columns.choose`.
    """
    try:
        return choose(asked)
    except NoEnvironment as error:
        told = partial(tell, error=True)
        words = [column.replace("@", "==", 1) for column in error.columns]
        if not _confirm(f"make {' and '.join(words)} now, with 'harness env'?"):
            raise
        for word in words:
            make.make(wanted.read_request([word]), sys.executable, told, force=False)
    return choose(asked)


def _confirm(question: str) -> bool:
    """Ask the user a question; return whether the answer is yes.

    Without a terminal, or in silent mode, return False.
    """
    if is_silent() or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    tell(f"{question} [y/N]", error=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _list_environments() -> CommandResult:
    found, damaged = cache.read_environments()
    for text in damaged:
        tell(text, error=True)
    lines = []
    for one in found.values():
        outdated = (
            "" if one.is_current else " (contains different code of the harness: make it again)"
        )
        lines.append(f"{_describe_environment(one)}, made {one.about.made}{outdated}")
    if not found and not damaged:
        lines = [
            f"there are no environments in {displayed(cache.root())}; make one with "
            "'harness env torch==2.6'"
        ]
    return CommandResult([_environment_record(one) for one in found.values()], "\n".join(lines))


def _environment_record(found: MadeEnvironment) -> dict[str, object]:
    return {**found.about.model_dump(), "interpreter": found.python, "ready": found.is_current}


def _describe_environment(found: MadeEnvironment) -> str:
    versions = ", ".join(f"{name} {text}" for name, text in found.about.versions.items())
    return f"{found.about.column}: {versions}, Python {found.about.python}"


def _folder_size(folder: Path) -> int:
    """Return the bytes of all files in an environment, including files that environments share."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size
        for parent, _, names in os.walk(folder)
        for name in names
    )
