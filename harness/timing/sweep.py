"""How the time of a step grows with the batch, the length of a sequence, or a size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from harness.timing.contestant import TimedResult
from harness.timing.request import TimedCell


def slopes(results: Sequence[TimedResult]) -> list[dict[str, Any]]:
    """A fit of log(seconds) over log(value) for every value that varies while others stay.

    The slope is 1 where twice the work takes twice as long, and 0 where it is free. ``r_squared``
    says how straight the line is; with two points it is always 1.
    """
    families: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for result in results:
        if result.measured:
            values = _values(result.cell)
            for name, value in values.items():
                others = {n: v for n, v in values.items() if n != name}
                family = f"{_name(result.cell)} {_words(others)}"
                families.setdefault((family, name), []).append((value, median(result.seconds)))
    fits = []
    for (family, name), points in families.items():
        points.sort()
        if len({value for value, _ in points}) > 1:
            fits.append({"cells": family, "over": name, **_fit(points)})
    return fits


def _fit(points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    x, y = np.log([value for value, _ in points]), np.log([seconds for _, seconds in points])
    slope, intercept = np.polyfit(x, y, 1)
    left = float(np.sum((y - slope * x - intercept) ** 2))
    whole = float(np.sum((y - np.mean(y)) ** 2))
    return {
        "values": [value for value, _ in points],
        "seconds": [seconds for _, seconds in points],
        "slope": float(slope),
        "r_squared": 1 - left / whole if whole > 0 else 1.0,
    }


def _values(cell: TimedCell) -> dict[str, int]:
    return {"batch": cell.batch, "time": cell.time, **cell.sizes}


def _name(cell: TimedCell) -> str:
    return f"{cell.spec} {cell.backend} {cell.mode}"


def _words(values: Mapping[str, int]) -> str:
    return " ".join(f"{name} {value}" for name, value in values.items())


def lines(fits: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a fit, for a person."""
    return [
        f"{fit['cells']}: seconds grow as {fit['over']}^{fit['slope']:.2f} "
        f"(R2 {fit['r_squared']:.3f}, {fit['over']} {', '.join(map(str, fit['values']))})"
        for fit in fits
    ]
