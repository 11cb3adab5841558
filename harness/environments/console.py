"""The command ``env``: its output and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.command.outcome import CommandResult
from harness.environments import installed, make, request
from harness.environments.columns import Columns, choose
from harness.environments.installed import MadeEnvironment, NoEnvironment
from harness.environments.options import EnvOptions
from harness.errors import UsageError
from harness.files.user_file import MIB, displayed
from harness.output.printing import is_silent, tell


def run_env(env_options: EnvOptions) -> CommandResult:
    """Run the command ``harness env``: make, list or remove environments.

    Raises:
        UsageError: the arguments do not fit the options.
        NotMade: the environment cannot be made.
    """
    words = env_options.words
    if env_options.remove:
        if not words:
            raise UsageError("--remove needs the name of an environment; 'harness env' lists them")
        columns = [request.environment_name(word) for word in words]
        for column in columns:
            make.find_folder(column)
        removed = [displayed(make.remove(column)) for column in columns]
        return CommandResult(
            {"removed": removed}, "\n".join(f"removed: {folder}" for folder in removed)
        )
    if not words or env_options.list:
        if words:
            raise UsageError(f"--list takes no environment, found {words[0]!r}")
        return _list_environments()
    tell_error = partial(tell, error=True)
    python = env_options.python or sys.executable
    environment = make.make(request.read_request(words), python, tell_error, env_options.force)
    lines = (
        f"{_describe_environment(environment)}, {_folder_size(environment.folder) / MIB:,.0f} MiB",
        f"use it with: --backend {environment.about.column}",
        f"same as:     --backend {environment.about.column}={environment.python}",
    )
    return CommandResult(_environment_record(environment), "\n".join(lines))


def choose_or_make(requests: Sequence[str]) -> Columns:
    """Return the requested backends as columns of the report. On a terminal, offer to make missing
    environments.

    Raises:
        NoEnvironment: environments are missing, and the answer is no or there is no terminal.
        NotMade: an environment cannot be made.
        UsageError: as in :func:`.columns.choose`.
    """
    try:
        return choose(requests)
    except NoEnvironment as error:
        tell_error = partial(tell, error=True)
        words = [column.replace("@", "==", 1) for column in error.columns]
        if not _confirm(f"make {' and '.join(words)} now, with 'harness env'?"):
            raise
        for word in words:
            make.make(request.read_request([word]), sys.executable, tell_error, force=False)
    return choose(requests)


def _confirm(question: str) -> bool:
    """Ask the user a question; return whether the answer is yes.

    Without a terminal, or in silent mode, return False.
    """
    if is_silent() or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    tell(f"{question} [y/N]", error=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _list_environments() -> CommandResult:
    environments, damaged = installed.read_environments()
    for text in damaged:
        tell(text, error=True)
    lines = []
    for environment in environments.values():
        outdated = (
            ""
            if environment.is_current
            else " (contains different code of the harness: make it again)"
        )
        lines.append(
            f"{_describe_environment(environment)}, made {environment.about.made}{outdated}"
        )
    if not environments and not damaged:
        lines = [
            f"there are no environments in {displayed(installed.root())}; make one with "
            "'harness env torch==2.6'"
        ]
    return CommandResult(
        [_environment_record(environment) for environment in environments.values()],
        "\n".join(lines),
    )


def _environment_record(environment: MadeEnvironment) -> dict[str, object]:
    return {
        **environment.about.model_dump(),
        "interpreter": environment.python,
        "ready": environment.is_current,
    }


def _describe_environment(environment: MadeEnvironment) -> str:
    versions = ", ".join(f"{name} {text}" for name, text in environment.about.versions.items())
    return f"{environment.about.column}: {versions}, Python {environment.about.python}"


def _folder_size(folder: Path) -> int:
    """Return the size of an environment's folder in bytes. Files that several environments share
    (hard links) are included."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size
        for parent, _, names in os.walk(folder)
        for name in names
    )
