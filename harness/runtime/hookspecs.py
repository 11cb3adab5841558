"""The hooks of a plugin: the whole extension point.

A distribution names its backends in the entry-point group ``harness.backends`` and its formats in
``harness.formats``; the entry point's value is a module that implements these hooks. One module
may serve several names, and both groups: each hook is told which name was asked for. Importing the
module must be cheap and must not import a framework; that is for :func:`harness_backend` and
:func:`harness_format`, which run in a process of that one name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pluggy

# Measurements of what a framework does where nothing is said, by entry of the catalogue.

Measured = bool | int | float | str
Probe = Callable[[], Measured]


class Probes(dict[str, Probe]):
    """The measurements of one framework, as its plugin gives them to :mod:`harness.defaults`.

    Each is a function without arguments, marked with ``@PROBES``; ``gru_reset`` belongs to the
    entry ``gru-reset``.
    """

    def __call__(self, function: Probe) -> Probe:
        """Keep a measurement under its name."""
        self[function.__name__.replace("_", "-")] = function
        return function

    def looked_up(self, row: Callable[[int], Measured]) -> None:
        """Keep what ``row`` finds in a table of three rows for an index that is too large, 3, and
        for a negative one, -1: a row's number, ``NaN`` or ``error``."""
        self["index-too-large"] = partial(row, 3)
        self["index-negative"] = partial(row, -1)


if TYPE_CHECKING:
    from harness.runtime.backend import Backend
    from harness.runtime.hookspecs import Probes

PROJECT = "harness"
ENTRY_POINT_GROUP = "harness.backends"
FORMATS_GROUP = "harness.formats"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """What a plugin's module may implement: :func:`harness_backend`, :func:`harness_format`, or
    both.

    Whatever a hook raises, and SystemExit too, is told with its traceback as the plugin's fault; so
    is a hook that returns None where something is wanted.
    """

    @hookspec(firstresult=True)
    def harness_environment(self, name: str) -> Mapping[str, str] | None:
        """Environment variables that backend ``name`` needs before its framework is imported.

        Called in the worker, which starts anew under them: they go before those of the user. None
        if there are none.

        Args:
            name: That of the entry point.

        Returns:
            Strings by string.
        """

    @hookspec(firstresult=True)
    def harness_deterministic(self, name: str) -> Mapping[str, str] | None:
        """Environment variables beside those above, where the same call is to give the same bits.

        Asked for with ``--deterministic`` only; :attr:`harness.extend.Backend.deterministic` is
        then set, too. None if there are none.

        Args:
            name: That of the entry point.

        Returns:
            Strings by string.
        """

    @hookspec(firstresult=True)
    def harness_backend(self, name: str) -> Backend:  # type: ignore[empty-body]
        """Import the framework and make backend ``name``. Called once, in the worker.

        Args:
            name: That of the entry point, which is the backend's own ``name`` too.

        Returns:
            A backend with every primitive in its table.
        """

    @hookspec(firstresult=True)
    def harness_defaults(self, name: str) -> Probes | None:
        """Measurements of what the framework of backend ``name`` does where nothing is said.

        Called in the worker, after :func:`harness_backend`, for ``harness differences --run``. None
        if there are none.

        Args:
            name: That of the entry point.

        Returns:
            Functions without arguments by entry of the catalogue, each of which gives a number, a
            text or a truth value.
        """

    @hookspec(firstresult=True)
    def harness_format(self, name: str) -> Any:
        """Import the framework and make format ``name``. Called once, in a process of its own.

        It may set environment variables before the import.

        Args:
            name: That of the entry point, which is the format's own ``name`` too.

        Returns:
            A :class:`harness.extend.formats.Format`.
        """
