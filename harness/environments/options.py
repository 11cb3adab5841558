"""Options of ``env``. The module imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass

from harness.command import shared
from harness.command.declared import HOW, option


@dataclass(init=False, repr=False, eq=False)
class EnvOptions:
    """Make an environment with another version of a framework, and keep it in the cache folder.

    After 'harness env torch==2.6', '--backend torch@2.6' is a column of its own, beside torch.
    Further requirements are pip's, such as 'numpy<2'. It is installed by uv where that is on the
    path, else by venv and pip, with this harness in it.

    Exit code 0: done; 2: wrong usage; 3: it could not be made, and nothing is left of it.
    """

    words: tuple[str, ...] = option(
        (),
        "The version, and further requirements of pip.",
        word="words",
        kind="environment",
        metavar="[BACKEND==VERSION [REQUIREMENT]...]",
    )
    list: bool = option(False, "List the environments that there are.")
    remove: bool = option(False, "Remove environments.")
    python: str | None = option(
        None,
        "Python to make it on; this one if left out.",
        section=HOW,
        kind="file",
        metavar="INTERPRETER",
    )
    force: bool = shared.force()
    as_json: bool = shared.as_json()
