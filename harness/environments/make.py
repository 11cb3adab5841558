"""Creation and removal of environments. An environment is made completely or not at all, and only
by one process at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from harness.environments import installed
from harness.environments.installed import MadeEnvironment
from harness.environments.request import DISTRIBUTION, EnvironmentRequest, is_editable, pack
from harness.errors import CouldNotRun, UsageError
from harness.files.atomic import write_whole
from harness.files.lock import hold_lock
from harness.files.system import POSIX
from harness.files.user_file import displayed
from harness.runtime.code_digest import digest
from harness.runtime.labels import contradiction

# The most lines that are shown of a failed command's output.
SHOWN = 20


class NotMade(CouldNotRun):
    """Error: an environment could not be made. The incomplete folder has been removed again."""


def make(
    request: EnvironmentRequest, python: str, tell: Callable[[str], None], force: bool
) -> MadeEnvironment:
    """Return an environment: the existing one, or a new one that uses the interpreter ``python``.

    ``tell`` is called with progress messages. ``force`` replaces an existing environment.

    Raises:
        NotMade: the installation fails, or the backend does not work in the environment.
        UsageError: there is an environment with other requirements, or a symbolic link in its
            place, or another process is making it.
    """
    folder = installed.root() / request.column
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {displayed(folder.parent)}: {error.strerror}") from None
    _check_no_symbolic_link(folder)
    with hold_lock(folder, "make a different environment"):
        existing = None if force else installed.read_environment(folder)
        if existing is not None and existing.is_current:
            _check_same_request(existing, request, python)
            return existing
        try:
            shutil.rmtree(folder, ignore_errors=True)
            about = _install(request, folder, python, tell)
            if POSIX:
                os.sync()  # before the file marks it as complete
            write_whole(folder / installed.ABOUT, json.dumps(about, indent=1).encode())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        environment = installed.read_environment(folder)
        assert environment is not None
        return environment


def find_folder(column: str) -> Path:
    """Return the folder of an environment, complete or not. ``column`` is the environment's name,
    e.g. ``torch@2.6``.

    Raises:
        UsageError: there is no such folder, or it is a symbolic link.
    """
    folder = installed.root() / column
    if not folder.is_dir():
        known = ", ".join(installed.complete_environments()) or "none"
        raise UsageError(f"there is no environment {column} (existing: {known})")
    _check_no_symbolic_link(folder)
    return folder


def remove(column: str) -> Path:
    """Remove the environment ``column`` (e.g. ``torch@2.6``), complete or not. Return the folder
    that it had.

    Raises:
        UsageError: there is no such folder, it is a symbolic link, or another process is making it.
    """
    folder = find_folder(column)
    with hold_lock(folder, "remove it later"):
        # Remove the marker first: an interrupted removal then leaves no seemingly complete
        # environment.
        (folder / installed.ABOUT).unlink(missing_ok=True)
        shutil.rmtree(folder)
    return folder


def _check_no_symbolic_link(folder: Path) -> None:
    if folder.is_symlink():
        raise UsageError(
            f"{displayed(folder)} is a symbolic link to {displayed(os.readlink(folder))}; "
            "'harness env' did not make this link: remove it yourself"
        )


def _install(
    request: EnvironmentRequest, folder: Path, python: str, tell: Callable[[str], None]
) -> Mapping[str, object]:
    """Install and test a new environment in ``folder``; return the content of its
    ``environment.json``."""
    uv = shutil.which("uv")
    own_python = str(folder / installed.PYTHON)
    venv_command = (
        [uv, "venv", "--quiet", "--no-project", "--python", python]
        if uv
        else [python, "-m", "venv"]
    )
    install_command = (
        [uv, "pip", "install", "--quiet", "--python", own_python]
        if uv
        else [own_python, "-m", "pip", "install"]
    )
    install_command += [] if uv else ["--quiet", "--no-input", "--disable-pip-version-check"]
    tell(f"making {displayed(folder)} with {'uv' if uv else 'venv and pip'}")
    _run([*venv_command, str(folder)], folder.parent)
    tell(f"installing {', '.join(request.requirements)}, and this harness")
    with tempfile.TemporaryDirectory() as place:
        wheels = [str(pack(distribution, Path(place))) for distribution in request.packed]
        _run([*install_command, *wheels, *request.requirements], folder.parent)
    tell(f"testing {request.backend}")
    printed = _run(
        [own_python, "-P", "-m", "harness.environments.proof", request.backend], folder.parent
    )
    answer = json.loads(printed.splitlines()[-1])
    wrong = contradiction(request.column, answer["versions"])
    if wrong:
        raise NotMade(wrong)
    return {
        "column": request.column,
        "requirements": request.requirements,
        **answer,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "harness": version(DISTRIBUTION),
        "harness_code": "" if is_editable(request.packed[0]) else digest("harness"),
    }


def _run(command: Sequence[str], folder: Path) -> str:
    """Run a command and return its standard output.

    Raises:
        NotMade: the command fails, or cannot be run.
    """
    try:
        process = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise NotMade(f"cannot run {command[0]!r}: {error.strerror}") from None
    if process.returncode:
        last_lines = (process.stderr.strip() or process.stdout.strip()).splitlines()[-SHOWN:]
        raise NotMade("\n".join([f"command failed: {' '.join(command)}", *last_lines]))
    return process.stdout


def _check_same_request(
    existing: MadeEnvironment, request: EnvironmentRequest, python: str
) -> None:
    if python != sys.executable:
        code = "import platform; print(platform.python_version())"
        asked_version = _run([python, "-I", "-c", code], Path()).strip()
        if asked_version != existing.about.python:
            raise UsageError(
                f"environment {request.column} exists and has Python {existing.about.python}, but "
                f"{python} is Python {asked_version}: add --force to replace the environment"
            )
    if tuple(existing.about.requirements) != request.requirements:
        raise UsageError(
            f"environment {request.column} exists, but was made with "
            f"{', '.join(existing.about.requirements)}: add --force to replace it"
        )
