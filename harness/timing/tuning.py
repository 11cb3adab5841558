"""The worth of settings of the environment, beside the plain worker of the same backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from harness.timing.contestant import TimedResult
from harness.timing.noise import beyond_noise
from harness.timing.request import TUNINGS

# A gain or a loss of less is not worth a word.
WORTH = 0.03


def gains(results: Sequence[TimedResult]) -> list[dict[str, Any]]:
    """For every cell that ran under a setting: its speed relative to the plain one."""
    plain = {str(r.cell): r for r in results if not r.entry.tuning and r.measured}
    found = []
    for result in results:
        base = plain.get(str(replace(result.cell, backend=result.entry.backend)))
        if not result.entry.tuning or base is None or not result.measured:
            continue
        ratio = median(base.seconds) / median(result.seconds)
        known = beyond_noise(base.seconds, result.seconds)
        verdict = (
            "same" if not known or abs(ratio - 1) < WORTH else "pays" if ratio > 1 else "harms"
        )
        found.append(
            {
                "cell": str(base.cell),
                "backend": base.cell.backend,
                "tuning": result.entry.tuning,
                "environment": dict(TUNINGS[result.entry.tuning]),
                "speed_ratio": ratio,
                "verdict": verdict,
            }
        )
    return found


def lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """In words, which settings paid or harmed, where and by how much."""
    told = [
        f"{gain['cell']}: {gain['tuning']} {gain['verdict']}: {gain['speed_ratio']:.2f} times the "
        f"speed"
        for gain in found
        if gain["verdict"] != "same"
    ]
    used = dict.fromkeys(str(gain["tuning"]) for gain in found)
    settings = [
        f"{name}: {' '.join(f'{n}={v}' for n, v in TUNINGS[name].items())}" for name in used
    ]
    if found and not told:
        told = ["no setting made a difference beyond the noise"]
    return told + settings
