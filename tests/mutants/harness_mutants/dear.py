"""Faults that a plain run cannot see: what only ``--thorough`` or ``--repeat`` is for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from harness.runtime.session import Session
from harness_mutants.gradients import Graded
from harness_mutants.numbers import rounded
from harness_mutants.registry import MUTANTS, session


def dear(check: str) -> Callable[[type[Session]], type[Session]]:
    """Register a session class whose fault a plain run passes."""

    def add(cls: type[Session]) -> type[Session]:
        session("simple_rnn", check)(cls)
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
        MUTANTS[name] = replace(MUTANTS[name], dear=True)
        return cls

    return add


@dear("own-sizes")
class RoundedFrom200Units(Session):
    """Matrices of 200 rows and columns and more are kept in bfloat16."""

    def load(self, parameters: Any, statistics: Any) -> None:
        wide = {n: a for n, a in parameters.items() if a.ndim == 2 and min(a.shape) >= 200}
        kept = {n: rounded(a, 8).astype(a.dtype) for n, a in wide.items()}
        super().load({**parameters, **kept}, statistics)


@dear("soak")
class RaceOnceInFiveHundred(Graded):
    """One gradient in five hundred lacks a part, as where two threads add to one place."""

    _calls = 0

    def alter(self, gradients: Any, *_: Any) -> Any:
        self._calls += 1
        if self._calls % 500:
            return {}
        return {n: g * np.asarray(0.999, g.dtype) for n, g in gradients.items()}
