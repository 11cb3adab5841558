"""Parametrized tests of which ``make test`` runs a part, and ``make test-all`` all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def sampled(values: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """Return parameters of a test, marked ``thorough`` except for those in ``kept``.

    Raises:
        ValueError: ``kept`` has a parameter that is not in ``values``.
    """
    every = list(values)
    if absent := [value for value in kept if value not in every]:
        raise ValueError(f"{absent} are not among {every}")
    return [
        value
        if value in kept
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=_THOROUGH)
        for value in every
    ]


_THOROUGH = (pytest.mark.thorough, pytest.mark.slow)
