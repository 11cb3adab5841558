"""Sweeps of which ``make test`` runs a part, and ``make test-all`` the whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def sampled(values: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """Parameters of a test, of which all but ``kept`` are marked ``thorough``.

    Raises:
        ValueError: something is to be kept that is not among them.
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
