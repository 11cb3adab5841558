"""A worker handler whose methods are faults: each does to its process what a backend may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from process_faults import harm, offspring


def verb(name: str) -> Callable[..., Any]:
    """Return the fault function of this name."""
    found: Callable[..., Any] = {**vars(harm), **vars(offspring)}[name]
    return found


def handler(name: str) -> Callable[[str, dict[str, Any]], Any]:
    """Return the function that answers the calls of a worker with the name `name`."""
    return lambda called, payload: verb(called)(**payload)
