"""Faults that only ``harness check`` with ``--thorough`` or ``--repeat`` detects."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from harness.runtime.session import Session
from harness_mutants.gradients import AlteredGradients
from harness_mutants.numbers import rounded
from harness_mutants.registry import MUTANTS, session


def dear(check: str) -> Callable[[type[Session]], type[Session]]:
    """Register a session class whose fault passes a check without these options."""

    def add(cls: type[Session]) -> type[Session]:
        session("simple_rnn", check)(cls)
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
        MUTANTS[name] = replace(MUTANTS[name], dear=True)
        return cls

    return add


@dear("own-sizes")
class RoundedFrom200Units(Session):
    """Matrices with at least 200 rows and 200 columns are stored in bfloat16."""

    def load(self, parameters: Any, statistics: Any) -> None:
        wide = {n: a for n, a in parameters.items() if a.ndim == 2 and min(a.shape) >= 200}
        kept = {n: rounded(a, 8).astype(a.dtype) for n, a in wide.items()}
        super().load({**parameters, **kept}, statistics)


@dear("soak")
class RaceOnceInFiveHundred(AlteredGradients):
    """Every 500th gradient is 0.1% too small, as after a race between two threads."""

    _calls = 0

    def alter(self, gradients: Any, *_: Any) -> Any:
        self._calls += 1
        if self._calls % 500:
            return {}
        return {n: g * np.asarray(0.999, g.dtype) for n, g in gradients.items()}
