"""Options of ``env``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass

from harness.command import shared
from harness.command.declared import HOW, option


@dataclass(init=False, repr=False, eq=False)
class EnvOptions:
    """Create an environment with another version of a framework, in the user's cache folder.

    After 'harness env torch==2.6', you can use '--backend torch@2.6' beside torch. You can add
    requirements for pip, such as 'numpy<2'. The command installs with uv, or with venv and pip if
    uv is missing. The environment also gets this harness.

    The exit code is 0 for success, 2 for wrong usage, and 3 if the environment could not be created
    (no files are left).
    """

    words: tuple[str, ...] = option(
        (),
        "Version of a framework, and more requirements for pip.",
        word="words",
        kind="environment",
        metavar="[BACKEND==VERSION [REQUIREMENT]...]",
    )
    list: bool = option(False, "List the existing environments.")
    remove: bool = option(False, "Remove the named environments.")
    python: str | None = option(
        None,
        "Python for the new environment. Default: the Python of this command.",
        section=HOW,
        kind="file",
        metavar="INTERPRETER",
    )
    force: bool = shared.force()
    as_json: bool = shared.as_json()
