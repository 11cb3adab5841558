"""The installed environments, with one folder for each backend and version (``torch@2.6``).

``environment.json`` is written last. A folder without this file is incomplete and is ignored.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from harness.errors import UsageError
from harness.files.forms import Form, Malformed, formed, read_json
from harness.files.system import cache_folder
from harness.files.user_file import MIB, FileFault, displayed, read_bytes
from harness.output.printing import one_line
from harness.runtime.code_digest import digest

FOLDER = "environments"
ABOUT = "environment.json"
PYTHON = Path("bin", "python")


class NoEnvironment(UsageError):
    """Error: an environment does not exist, or contains a harness with different code."""

    def __init__(self, message: str, columns: Sequence[str]) -> None:
        super().__init__(message)
        self.columns = tuple(columns)


def _check_one_line(text: str) -> str:
    if one_line(text) != text:
        raise ValueError(f"no control characters are allowed, found {text!r}")
    return text


Word = Annotated[str, AfterValidator(_check_one_line)]


class About(Form):
    """The content of ``environment.json``.

    ``column`` is the environment's name, e.g. ``torch@2.6``, and ``made`` the time at which it was
    made. ``harness_code`` is the checksum of the harness's code, empty for an editable
    installation.
    """

    column: Word
    requirements: Annotated[list[Word], Field(min_length=1)]
    versions: dict[Word, Word]
    python: Word
    made: Word
    harness: Word
    harness_code: Word = ""


@dataclass(frozen=True)
class MadeEnvironment:
    """A complete environment and its folder."""

    folder: Path
    about: About

    @property
    def python(self) -> str:
        """The path of the interpreter."""
        return str(self.folder / PYTHON)

    @property
    def is_current(self) -> bool:
        """True if the environment's harness has the same code as the harness of this process."""
        return self.about.harness_code in ("", digest("harness"))


def root() -> Path:
    """Return the folder that contains all environments."""
    return cache_folder() / FOLDER


def complete_environments() -> dict[str, MadeEnvironment]:
    """Return a dictionary from name (``torch@2.6``) to environment, for all complete
    environments."""
    return read_environments()[0]


def read_environments() -> tuple[dict[str, MadeEnvironment], list[str]]:
    """Return two things: a dictionary from name (``torch@2.6``) to environment for all complete
    environments, and the error messages about unreadable environments."""
    environments: dict[str, MadeEnvironment] = {}
    damaged = []
    try:
        folders = sorted(path for path in root().iterdir() if path.is_dir())
    except OSError:  # no environment was made yet
        return {}, []
    for folder in folders:
        try:
            environment = read_environment(folder)
        except UsageError as error:
            damaged.append(str(error))
        else:
            environments |= {} if environment is None else {folder.name: environment}
    return environments, damaged


def read_environment(folder: Path) -> MadeEnvironment | None:
    """Return the environment in a folder, or None if the folder has no complete environment.

    Raises:
        UsageError: ``environment.json`` cannot be read.
    """
    path = folder / ABOUT
    if not os.path.lexists(path):
        return None
    try:
        content = read_json(read_bytes(path, MIB, "an environment"), displayed(path))
        about = formed(content, About)
    except (FileFault, Malformed) as fault:
        raise UsageError(
            f"{displayed(path)} was not written by 'harness env': {fault}; remove the folder"
        ) from None
    return MadeEnvironment(folder, about)


def _installed_version(backend: str) -> str:
    """Return the installed version of a backend's framework, without a suffix such as ``+cpu``."""
    try:
        return version(backend.partition("-")[0]).partition("+")[0]
    except PackageNotFoundError:
        return ""


def find_interpreter(column: str) -> str:
    """Return the path of the Python interpreter of an environment. ``column`` is the environment's
    name, e.g. ``torch@2.6``.

    Raises:
        NoEnvironment: there is no such environment, or the harness in it has different code than
            this harness.
        UsageError: ``environment.json`` cannot be read. Or there is no environment, and the label
            (the part after @) is not a version or is the installed version.
    """
    environment = read_environment(root() / column)
    backend, _, label = column.partition("@")
    make = f"harness env {backend}=={label}"
    if environment is None and not label[:1].isdigit():
        raise UsageError(
            f"{label!r} in {column} is not a version: write a version, such as "
            f"{backend}==2.6.0, or "
            f"an interpreter, {column}=/path/to/python"
        )
    if environment is None and label == _installed_version(backend):
        raise UsageError(
            f"there is no environment {column}, but version {label} is installed: write "
            f"{backend}, or "
            f"make the environment with '{make}'"
        )
    if environment is None:
        raise NoEnvironment(
            f"there is no environment {column}: make it with '{make}', or name an interpreter: "
            f"{column}=/path/to/python",
            [column],
        )
    if not environment.is_current:
        raise NoEnvironment(
            f"environment {column} contains different code of the harness "
            f"({environment.about.harness}, made {environment.about.made}): make it "
            f"again with '{make}'",
            [column],
        )
    return environment.python
