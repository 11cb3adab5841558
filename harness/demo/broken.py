"""The fault that the demo adds to a backend: the biases of two gates are swapped, as a faulty
plugin might do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.runtime import service
from harness.runtime.backend import Backend

GATES = ("b_z", "b_r")
# This backend never has the fault.
RIGHT = "numpy"


def handler(backend: Backend) -> Callable[[str, Any], Any]:
    """Return the function that answers the calls in a worker, with the demo's fault added to the
    backend. The numpy backend stays correct.

    Raises:
        UsageError: the backend's table of primitives is incomplete.
        ContractError: the backend is invalid, or has no name or no table of primitives.
    """
    answer = service.handler(backend)
    if backend.name == RIGHT:
        return answer

    def answer_with_fault(verb: str, payload: Any) -> Any:
        parameters = payload.get("parameters") if isinstance(payload, dict) else None
        if isinstance(parameters, Mapping):
            payload = {**payload, "parameters": _swap_biases(parameters)}
        return answer(verb, payload)

    return answer_with_fault


def _swap_biases(parameters: Mapping[str, Any]) -> dict[str, Any]:
    first, second = (f".{gate}" for gate in GATES)
    swapped = dict(parameters)
    for name in parameters:
        partner = name.removesuffix(first) + second
        if name.endswith(first) and partner in swapped:
            swapped[name], swapped[partner] = parameters[partner], parameters[name]
    return swapped
