"""The hooks (functions) that a plugin's module implements.

A distribution registers its backends in the entry-point group ``harness.backends`` and its formats
in ``harness.formats``. A backend in ``harness.backends.on_request`` runs only if ``--backend``
names it. Each entry point names a module that implements these hooks. One module may provide
several backends and formats: each hook gets the requested name. Importing the module must be fast
and must not import a framework. :func:`harness_backend` and :func:`harness_format` import the
framework. Each of their calls runs in a separate process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

# The measured default of a framework, for one entry of the catalogue of defaults.
Measured = bool | int | float | str
Probe = Callable[[], Measured]

if TYPE_CHECKING:
    from harness.runtime.backend import Backend

PROJECT = "harness"
ENTRY_POINT_GROUP = "harness.backends"
# The suffix of a group of plugins that run only if a user names them.
ON_REQUEST = ".on_request"
FORMATS_GROUP = "harness.formats"
# The environment variable with the folder in which a framework may keep the code that it compiles.
# The harness gives these files to later workers of the same backend, interpreter and processor.
COMPILED_CODE = "HARNESS_COMPILED_CODE"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """Hooks that a plugin's module may implement: ``harness_backend``, ``harness_format`` or both.

    If a hook raises an exception, even ``SystemExit``, the harness reports an error that names the
    plugin and shows the traceback. A hook that returns None instead of a required value is reported
    in the same way.
    """

    @hookspec(firstresult=True)
    def harness_environment(self, name: str) -> Mapping[str, str] | None:
        """Return environment variables that backend ``name`` needs before its framework's import.

        The worker calls this hook and then restarts itself with these variables. They override
        variables that the user has set. Return None if the backend needs no variables.

        Args:
            name: The name of the entry point.

        Returns:
            The value of each variable by its name.
        """

    @hookspec(firstresult=True)
    def harness_deterministic(self, name: str) -> Mapping[str, str] | None:
        """Return further environment variables that make identical calls give identical bits.

        The harness calls this hook only with the option ``--deterministic``, which also sets
        :attr:`harness.extend.Backend.deterministic`. Return None if the backend needs no variables.

        Args:
            name: The name of the entry point.

        Returns:
            The value of each variable by its name.
        """

    @hookspec(firstresult=True)
    def harness_instruction_sets(self, name: str) -> Mapping[str, Mapping[str, str]] | None:
        """Return environment variables that limit the framework to older instruction sets.

        ``harness fuzz --instruction-sets`` calls this hook. Return None if there are no such
        variables.

        Args:
            name: The name of the entry point.

        Returns:
            The variables by the name of the instruction set, e.g. ``avx2``.
        """

    @hookspec(firstresult=True)
    def harness_backend(self, name: str) -> Backend:  # type: ignore[empty-body]
        """Import the framework and return backend ``name``. The worker calls this hook once.

        Args:
            name: The name of the entry point, which is also the backend's ``name``.

        Returns:
            A backend whose table of primitives is complete.
        """

    @hookspec(firstresult=True)
    def harness_defaults(self, name: str) -> Mapping[str, Probe] | None:
        """Return functions that measure the defaults of the framework of backend ``name``.

        ``harness differences --run`` calls this hook in the worker, after :func:`harness_backend`.
        Return None if the backend has no such functions.

        Args:
            name: The name of the entry point.

        Returns:
            A mapping from the name of a default in the catalogue (``gru-reset``) to a function
            without arguments. Each function returns a number, a string or a bool.
        """

    @hookspec(firstresult=True)
    def harness_format(self, name: str) -> Any:
        """Import the framework and return format ``name``. The harness calls this hook once, in a
        separate process.

        The hook may set environment variables before the import.

        Args:
            name: The name of the entry point, which is also the format's ``name``.

        Returns:
            A :class:`harness.extend.formats.Format`.
        """
