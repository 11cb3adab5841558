"""Options that several commands share, and what their text stands for.

Imports nothing but click and messages: the command line must start at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from harness.errors import UsageError
from harness.ranges import SEED, SIZES, TIMEOUT, Range

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def number(allowed: Range) -> Callable[[Any], Any]:
    """The type of an option that takes a number of a documented range."""

    def read(value: Any) -> Any:
        try:
            return allowed.read(value) if isinstance(value, str) else allowed.check(value)
        except UsageError as error:
            raise click.BadParameter(str(error)) from None

    read.__name__ = "integer" if allowed.whole else "float"  # what --help shows
    return read


def timeout(seconds: float, help_: str) -> Option:
    """``--timeout``."""
    return click.option(
        "--timeout", type=number(TIMEOUT), default=seconds, show_default=True, help=help_
    )


def seed(help_: str) -> Option:
    """``--seed``."""
    return click.option("--seed", type=number(SEED), default=0, show_default=True, help=help_)


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
DEVICE = click.option("--device", default="cpu", show_default=True, help="As the backend names it.")
DETERMINISTIC = click.option(
    "--deterministic",
    is_flag=True,
    help="Have every framework give the same bits for the same call, on a GPU too.",
)
OWN_ENVIRONMENT = click.option(
    "--env", multiple=True, metavar="NAME=VALUE", help="Of the backend's process."
)
START = click.option(
    "--start-timeout",
    type=number(TIMEOUT),
    help="Seconds that a backend may take to start; 300, or HARNESS_START_TIMEOUT, if left out.",
)


def pairs(option: str, items: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` items; :class:`UsageError` for another form."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name or not equals or not value:
            raise UsageError(f"{option} takes NAME=VALUE, found {item!r}")
        if name in found:
            raise UsageError(f"{option} gives {name!r} twice: {found[name]!r} and {value!r}")
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
    return {
        name: int(SIZES.read(value, f"--size {name}"))
        for name, value in pairs("--size", items).items()
    }
