"""The hooks of a backend plugin: the whole extension point.

A distribution names its backends in the entry-point group ``harness.backends``; the entry point's
value is a module that implements these hooks. One module may serve several names: each hook is
told which one was asked for. Importing the module must be cheap and must not import a framework;
that is for :func:`harness_backend`, which runs in the worker process of that one backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from harness.runtime.backend import Backend

PROJECT = "harness"
ENTRY_POINT_GROUP = "harness.backends"
FORMATS_GROUP = "harness.formats"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class BackendHooks:
    """What a plugin module may implement; only :func:`harness_backend` is needed."""

    @hookspec(firstresult=True)
    def harness_environment(self, name: str) -> Mapping[str, str] | None:
        """Environment variables that backend ``name`` needs before its framework is imported."""

    @hookspec(firstresult=True)
    def harness_backend(self, name: str) -> Backend:  # type: ignore[empty-body]
        """Import the framework and return backend ``name``, ready to be used."""
