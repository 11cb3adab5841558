"""Measurements of numpy's defaults, e.g. of its default float dtype: one function for each entry of
``specs/defaults``."""

from __future__ import annotations

import math

import numpy as np

from harness.extend import Measured, Probes

PROBES = Probes()


def _look_up(index: int) -> Measured:
    try:
        return f"row {int(np.arange(3)[index])}"
    except IndexError:
        return "error"


PROBES.looked_up(_look_up)


@PROBES
def repeated_index_add() -> Measured:
    x = np.zeros(2)
    x[[0, 0]] += 1
    return float(x[0])


PROBES.observe({"array-sharing": lambda array: np.asarray(array).copy})
PROBES.update(
    {
        "default-float": lambda: str(np.zeros(1).dtype),
        "default-integer": lambda: str(np.arange(1).dtype),
        "float64-array": lambda: str(np.asarray(np.zeros(1)).dtype),
        "standard-deviation": lambda: float(np.array([0.0, 2.0]).std()),
        "median-of-two": lambda: float(np.median([1.0, 2.0])),
        "argmax-nan": lambda: int(np.argmax([1.0, math.nan, 2.0])),
    }
)
