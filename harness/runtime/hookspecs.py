"""Specify the hooks that a plugin's module implements.

A distribution registers its backends in the entry-point group ``harness.backends`` and its formats
in ``harness.formats``. The entry point's value is a module that implements these hooks. One module
may serve several names and both groups: each hook gets the requested name. Importing the module
must be cheap and must not import a framework. :func:`harness_backend` and :func:`harness_format`
import it; each runs in a process for that one name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pluggy

# Result of measuring a framework's default, for one entry of the catalogue.

Measured = bool | int | float | str
Probe = Callable[[], Measured]


class Probes(dict[str, Probe]):
    """The measurements of a framework's defaults, which a plugin gives :mod:`harness.defaults`.

    Each is a function without arguments, marked with ``@PROBES``. The function ``gru_reset``
    measures the entry ``gru-reset``.
    """

    def __call__(self, function: Probe) -> Probe:
        """Add a measurement under the name of its function."""
        self[function.__name__.replace("_", "-")] = function
        return function

    def looked_up(self, row: Callable[[int], Measured]) -> None:
        """Add two measurements of ``row``, which reads a row of a table of three rows.

        One reads the too large index 3, the other -1. ``row`` returns a row's number, ``NaN`` or
        ``error``.
        """
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
    """Hooks that a plugin's module may implement: ``harness_backend``, ``harness_format`` or both.

    If a hook raises, ``SystemExit`` included, the error names the plugin and shows the traceback.
    The same holds if a hook returns None although a value is required.
    """

    @hookspec(firstresult=True)
    def harness_environment(self, name: str) -> Mapping[str, str] | None:
        """Return environment variables that backend ``name`` needs before its framework's import.

        The worker calls this hook and then restarts with these variables, which override the
        user's. Return None if there are none.

        Args:
            name: The name of the entry point.

        Returns:
            The value of each variable by its name.
        """

    @hookspec(firstresult=True)
    def harness_deterministic(self, name: str) -> Mapping[str, str] | None:
        """Return further environment variables that make identical calls give identical bits.

        Called only with ``--deterministic``, which also sets
        :attr:`harness.extend.Backend.deterministic`. Return None if there are none.

        Args:
            name: The name of the entry point.

        Returns:
            The value of each variable by its name.
        """

    @hookspec(firstresult=True)
    def harness_backend(self, name: str) -> Backend:  # type: ignore[empty-body]
        """Import the framework and make backend ``name``. Called once, in the worker.

        Args:
            name: The name of the entry point, which is also the backend's ``name``.

        Returns:
            A backend with every primitive in its table.
        """

    @hookspec(firstresult=True)
    def harness_defaults(self, name: str) -> Probes | None:
        """Return functions that measure the defaults of the framework of backend ``name``.

        ``harness differences --run`` calls it in the worker, after :func:`harness_backend`. Return
        None if there are none.

        Args:
            name: The name of the entry point.

        Returns:
            Functions without arguments by entry of the catalogue. Each returns a number, a text or
            a truth value.
        """

    @hookspec(firstresult=True)
    def harness_format(self, name: str) -> Any:
        """Import the framework and make format ``name``. Called once, in a process of its own.

        It may set environment variables before the import.

        Args:
            name: The name of the entry point, which is also the format's ``name``.

        Returns:
            A :class:`harness.extend.formats.Format`.
        """
