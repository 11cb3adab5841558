"""Comparison of timed cells with each other: how the time grows with a size, and how backend
settings change the speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from harness.timing.contestant import TimedResult
from harness.timing.noise import beyond_noise
from harness.timing.request import TUNINGS

# Gains or losses below this share are not reported.
WORTH = 0.03


def compare_tunings(results: Sequence[TimedResult]) -> list[dict[str, object]]:
    """Compare each cell that was timed with a tuning (non-default settings of a backend) with the
    same cell at default settings.

    Return one dictionary per comparison. It has the speed relative to the default settings
    (``speed_ratio``) and a ``verdict``: the tuning "pays", "harms" or makes no difference ("same").
    """
    plain = {str(r.cell): r for r in results if not r.entry.tuning and r.measured}
    entries = []
    for result in results:
        base = plain.get(str(replace(result.cell, backend=result.entry.backend)))
        if not result.entry.tuning or base is None or not result.measured:
            continue
        ratio = median(base.seconds) / median(result.seconds)
        known = beyond_noise(base.seconds, result.seconds)
        verdict = (
            "same" if not known or abs(ratio - 1) < WORTH else "pays" if ratio > 1 else "harms"
        )
        entries.append(
            {
                "cell": str(base.cell),
                "backend": base.cell.backend,
                "tuning": result.entry.tuning,
                "environment": dict(TUNINGS[result.entry.tuning]),
                "speed_ratio": ratio,
                "verdict": verdict,
            }
        )
    return entries


def describe_tunings(found: Sequence[Mapping[str, object]]) -> list[str]:
    """Return lines of text that say which settings help or harm which cell, and by how much.
    ``found`` comes from :func:`compare_tunings`."""
    texts = [
        f"{gain['cell']}: {gain['tuning']} {gain['verdict']}: {gain['speed_ratio']:.2f} times the "
        f"speed"
        for gain in found
        if gain["verdict"] != "same"
    ]
    used = dict.fromkeys(str(gain["tuning"]) for gain in found)
    settings = [
        f"{name}: {' '.join(f'{n}={v}' for n, v in TUNINGS[name].items())}" for name in used
    ]
    if found and not texts:
        texts = ["no setting made a difference beyond the noise"]
    return texts + settings


def fit_slopes(results: Sequence[TimedResult]) -> list[dict[str, object]]:
    """Fit a line to log(seconds) against log(size). Its slope shows how the time grows with the
    size: 1 means in proportion.

    Return one dictionary per fit, e.g. with the size (``over``), the ``slope`` and ``r_squared``.
    There is a fit for a size if several of its values were timed while all other sizes stayed the
    same.
    """
    families: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for result in results:
        if result.measured:
            cell = result.cell
            values = {"batch": cell.batch, "time": cell.time, **cell.sizes}
            for name, value in values.items():
                others = " ".join(f"{n} {v}" for n, v in values.items() if n != name)
                family = f"{cell.spec} {cell.backend} {cell.mode} {others}"
                families.setdefault((family, name), []).append((value, median(result.seconds)))
    fits = []
    for (family, name), points in families.items():
        points.sort()
        if len({value for value, _ in points}) > 1:
            fits.append({"cells": family, "over": name, **_fit(points)})
    return fits


def _fit(points: Sequence[tuple[int, float]]) -> dict[str, object]:
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


def slope_lines(fits: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each fit of :func:`fit_slopes`, e.g. ``seconds grow as batch^0.50``."""
    return [
        f"{fit['cells']}: seconds grow as {fit['over']}^{fit['slope']:.2f} "
        f"(R2 {fit['r_squared']:.3f}, {fit['over']} {', '.join(map(str, fit['values']))})"
        for fit in fits
    ]
