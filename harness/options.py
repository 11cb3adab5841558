"""Options that several commands share, and what their text stands for.

Imports nothing but click and messages: the command line must start at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from harness.errors import UsageError

SPECS = click.option(
    "--specs",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of further definitions, found before those that ship.",
)
SIZE = click.option(
    "--size", "sizes", multiple=True, metavar="NAME=NUMBER", help="Another size than the spec's."
)
PYTHONS = click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="BACKEND=INTERPRETER",
    help="Run a backend in another environment, which has the harness too.",
)
ENVIRONMENT = click.option(
    "--env",
    "environment",
    multiple=True,
    metavar="BACKEND:NAME=VALUE",
    help="Set an environment variable of a backend's process.",
)


def pairs(option: str, items: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` items; :class:`UsageError` for another form."""
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name or not equals or not value:
            raise UsageError(f"{option} takes NAME=VALUE, found {item!r}")
        found[name] = value
    return found


def variables(items: Sequence[str]) -> dict[str, dict[str, str]]:
    """``BACKEND:NAME=VALUE`` items, by backend; :class:`UsageError` for another form."""
    found: dict[str, dict[str, str]] = {}
    for item in items:
        backend, colon, assignment = item.partition(":")
        name, equals, value = assignment.partition("=")
        if not colon or not equals or not name:
            raise UsageError(f"--env takes BACKEND:NAME=VALUE, found {item!r}")
        found.setdefault(backend, {})[name] = value
    return found


def numbers(items: Sequence[str]) -> dict[str, int]:
    """``NAME=NUMBER`` items with positive whole numbers."""
    found = {}
    for name, value in pairs("--size", items).items():
        if not value.isascii() or not value.isdigit() or not 0 < int(value) < 2**31:
            raise UsageError(f"--size {name} takes a positive whole number, found {value!r}")
        found[name] = int(value)
    return found
