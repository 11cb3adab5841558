"""Backends with one planted fault each, installed like any third-party plugin."""

from __future__ import annotations

from harness.contract import Backend
from harness.hookspecs import hookimpl
from harness_mutants import (  # noqa: F401 - importing a module registers its mutants
    arrays,
    definitions,
    gradients,
    loops,
    numbers,
    primitives,
    state,
    updates,
)
from harness_mutants.registry import MUTANTS, Faulty

CONTROL = "mutant-control"


@hookimpl
def harness_backend(name: str) -> Backend:
    """The mutant of that name; the control has no fault."""
    if name == CONTROL:
        return Faulty(name)
    return MUTANTS[name.removeprefix("mutant-")].make(name)
