"""The worker service that measures a framework's defaults, e.g. how biases are initialised."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from harness.runtime.answers import MeasuredAnswer
from harness.runtime.backend import Backend
from harness.runtime.plugins import BACKENDS


class DefaultsService:
    """The methods that the parent process calls in the worker of one framework."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def measure(self, names: Sequence[str]) -> dict[str, MeasuredAnswer]:
        """Return a dictionary from entry name to ``{"value": ...}`` with the measured default, or
        to ``{"error": ...}`` with a text.

        Entries that the framework's plugin cannot measure are left out.
        """
        probes = BACKENDS.call(self.backend.name, "harness_defaults") or {}
        return {name: _measured(probes[name]) for name in names if name in probes}


def _measured(probe: Callable[[], Any]) -> MeasuredAnswer:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a default that causes a warning is still a default
            value = probe()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    return {"value": value}


def handler(backend: Backend) -> Callable[[str, dict[str, Any]], Any]:
    """Return the function that answers calls of :class:`DefaultsService` in the worker of a
    backend."""
    service = DefaultsService(backend)

    def answer(verb: str, payload: dict[str, Any]) -> Any:
        return getattr(service, verb)(**(payload or {}))

    return answer
