"""Search for backends whose framework is not installed, without importing a framework.

``python -m harness.runtime.needs`` prints the list for its own interpreter.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec

from packaging.requirements import Requirement

from harness.errors import UsageError, did_you_mean
from harness.runtime.hookspecs import ENTRY_POINT_GROUP
from harness.runtime.plugins import extras, install_command, installed

PATIENCE = 60.0


def missing_frameworks(pythons: Mapping[str, str]) -> dict[str, str]:
    """Return a dictionary from each backend whose framework is missing to the command that installs
    the framework.

    ``pythons`` maps a backend to its interpreter. If an interpreter does not answer, its backends
    are not listed: their workers will report the error.
    """
    by_python = {python: _ask_interpreter(python) for python in dict.fromkeys(pythons.values())}
    return {
        name: by_python[python][name]
        for name, python in pythons.items()
        if name in by_python[python]
    }


def missing_here() -> dict[str, str]:
    """Return the backends whose framework this interpreter lacks: a mapping from the backend to the
    command that installs its framework."""
    commands = {}
    for name, (_, entry) in sorted(installed(ENTRY_POINT_GROUP).items()):
        if entry.dist is not None and not all(map(_is_installed, requirements(entry.dist, name))):
            commands[name] = install_command(entry.dist, extras(entry.dist, name))
    return commands


def unknown_backend(name: str) -> UsageError:
    """Return the error to raise for a backend that is not installed.

    Its message suggests a similar name, or a backend that uses a framework of that name. It lists
    the installed backends, with and without their framework.
    """
    entries, missing = installed(ENTRY_POINT_GROUP), missing_here()
    users = [
        backend
        for backend, (_, entry) in sorted(entries.items())
        if entry.dist is not None
        and name.lower() in (r.name.lower() for r in requirements(entry.dist, backend))
    ]
    hint = f"; write {users[0]}, which uses {name}" if users else did_you_mean(name, entries)
    listed = ", ".join(sorted(entries.keys() - missing.keys())) or "none"
    listed += f"; without its framework: {', '.join(missing)}" if missing else ""
    return UsageError(f"unknown backend {name!r}{hint} (installed: {listed})")


def requirements(dist: Distribution, backend: str) -> Iterator[Requirement]:
    """Yield the requirements (dependencies) that the package ``dist`` has only because of the
    extras for ``backend``."""
    names = extras(dist, backend)
    for text in dist.requires or () if names else ():
        requirement = Requirement(text)
        marker = requirement.marker
        by = [e for e in names if marker is not None and marker.evaluate({"extra": e})]
        if by and marker is not None and not marker.evaluate({"extra": ""}):
            yield requirement


def _is_installed(requirement: Requirement) -> bool:
    """Return whether a required distribution (package) is installed, or another distribution that
    provides the same module.

    For example, ``tensorflow-cpu`` provides the module of ``tensorflow``.
    """
    try:
        distribution(requirement.name)
    except PackageNotFoundError:
        return find_spec(requirement.name.replace("-", "_")) is not None
    return True


@cache
def _ask_interpreter(python: str) -> Mapping[str, str]:
    if python == sys.executable:
        return missing_here()
    command = [python, "-P", "-m", "harness.runtime.needs"]
    try:
        process = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
        commands = json.loads(process.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return (
        {str(name): str(text) for name, text in commands.items()}
        if isinstance(commands, dict)
        else {}
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(missing_here()))
