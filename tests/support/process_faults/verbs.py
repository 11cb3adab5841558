"""A worker handler whose verbs are faults: each does to its process what a backend may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from process_faults import harm, offspring


def verb(name: str) -> Callable[..., Any]:
    """What does the harm of this name."""
    found: Callable[..., Any] = {**vars(harm), **vars(offspring)}[name]
    return found


def handler(name: str) -> Callable[[str, dict[str, Any]], Any]:
    """Return what answers the calls of a worker called `name`."""
    return lambda called, payload: verb(called)(**payload)
