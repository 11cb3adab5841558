"""Arrays of numbers that come from elsewhere, and what may stand in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Array

# Kinds of dtype that are numbers to compare: bool, signed and unsigned integers, floats.
NUMBERS = "biuf"
# What backends are given of what holds no floats, by its kind.
WHOLE: Mapping[str, Any] = {"index": np.int64, "bool": np.bool_}


class IllFormed(Exception):
    """An answer of a worker that is not of the form that is wanted; the message says in what."""


@dataclass(frozen=True)
class Misfit:
    """Something else in the place of an array of numbers; ``reason`` says what it is."""

    reason: str


def tensor(value: Any) -> Array | Misfit:
    """An array of numbers as it is, or what is wrong with anything else."""
    if value is None:
        return Misfit("nothing was returned")
    if isinstance(value, Misfit):
        return value
    if not isinstance(value, np.ndarray | np.generic):
        return Misfit(f"expected an array, found {type(value).__name__}")
    if value.dtype.kind not in NUMBERS:
        return Misfit(f"expected an array of numbers, found dtype {value.dtype}")
    return np.asarray(value)


def whole(tensors: Mapping[str, Array | Misfit]) -> dict[str, Array]:
    """Tensors that are all arrays.

    Raises:
        IllFormed: one is not; the message names it.
    """
    found: dict[str, Array] = {}
    for name, value in tensors.items():
        if isinstance(value, Misfit):
            raise IllFormed(f"{name}: {value.reason}")
        found[name] = value
    return found
