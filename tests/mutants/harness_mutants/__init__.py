"""Backends with one planted fault each, installed like any third-party plugin.

Importing a module of this package registers its mutants.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from harness.backends.numpy.backend import Numpy
from harness.program.ir import Program
from harness.runtime.backend import Backend
from harness.runtime.hookspecs import hookimpl
from harness.runtime.session import Session, make_session
from harness_mutants import (  # noqa: F401
    aligned,
    arrays,
    big_inferences,
    counts,
    deep_checks,
    definitions,
    extreme_values,
    framing,
    given_batches,
    gradients,
    later_steps,
    loops,
    mixed_precision,
    noise,
    numbers,
    other_primitives,
    pipelines,
    plans,
    primitives,
    ranks,
    sizes,
    state,
    strides,
    training_runs,
    updates,
    usage_modes,
)
from harness_mutants.registry import MUTANTS, Faulty

CONTROL = "control"
# Two names for the same backend, so that two workers share the mutants.
BACKENDS = ("mutants-1", "mutants-2")


@cache
def _make(device: str) -> Faulty:
    return Faulty() if device == CONTROL else MUTANTS[device].make()


class Mutants(Numpy):
    """The mutants as devices of one backend; the device ``control`` has no fault."""

    def __init__(self, name: str) -> None:
        self.name = name

    def devices(self) -> tuple[str, ...]:
        return (CONTROL, *MUTANTS)

    def use(self, device: str, dtype: str) -> None:
        super().use(device, dtype)
        self._device = device

    def session(self, training: Program, inference: Program, **choices: Any) -> Session:
        mutant = MUTANTS.get(self._device)
        elsewhere = training.name.startswith("probe/") and not (mutant and mutant.everywhere)
        chosen = _make(CONTROL if elsewhere else self._device)
        chosen.quick = self.quick
        return make_session(chosen, training, inference, **choices)


@hookimpl
def harness_backend(name: str) -> Backend:
    """Return all mutants for each of the two names."""
    return Mutants(name)
