"""The planted fault of the demo: the biases of two gates are swapped, as in a faulty plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.runtime import service
from harness.runtime.backend import Backend

GATES = ("b_z", "b_r")
# This backend never has the fault.
RIGHT = "numpy"


def handler(backend: Backend) -> Callable[[str, Any], Any]:
    """Return the function that answers the calls of a worker whose backend has the planted fault.
    The numpy backend does not get the fault.

    Raises:
        UsageError: the backend's table of primitives is incomplete.
        ContractError: the backend is invalid, or has no name or no table of primitives.
    """
    answer = service.handler(backend)
    if backend.name == RIGHT:
        return answer

    def broken(verb: str, payload: Any) -> Any:
        given = payload.get("parameters") if isinstance(payload, dict) else None
        if isinstance(given, Mapping):
            payload = {**payload, "parameters": _traded(given)}
        return answer(verb, payload)

    return broken


def _traded(parameters: Mapping[str, Any]) -> dict[str, Any]:
    one, other = (f".{gate}" for gate in GATES)
    found = dict(parameters)
    for name in parameters:
        partner = name.removesuffix(one) + other
        if name.endswith(one) and partner in found:
            found[name], found[partner] = parameters[partner], parameters[name]
    return found
