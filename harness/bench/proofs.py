"""What a backend must prove before its speed is believed. Each leaves its numbers in the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from harness.bench.contestant import Contestant, Refused
from harness.oracle.tolerance import digits, worst

# 10 n steps must take 10 times as long as n, within this share.
LINEAR = 0.2
FACTOR = 10
TRIES = 3
# Seconds that the short runs take at first, and how much longer they get where the numbers are
# not convincing: noise goes away with length, a missing wait does not.
SHORT = 0.03
LONGER = 3
ATTEMPTS = 3
# Products cannot be faster than this many times the fastest that was measured.
HARDWARE = 3.0
# What a baseline's losses and outputs may be off: it may be another optimizer's.
BASELINE = 1e-3

Values = Sequence[Mapping[str, Any]]


def check_values(contestant: Contestant) -> None:
    """The results of the first steps are those of the oracle; :class:`Refused` if not."""
    results, after = compared_steps(contestant)
    case = contestant.case
    found = case.found(results, after)
    if contestant.entry.baseline:
        _check_baseline(contestant, found)
        return
    deviations = case.compare(found)
    furthest = worst(deviations)
    contestant.record.values = {
        "compared": len(deviations),
        "worst": furthest.name,
        "error": furthest.error,
        "ratio": furthest.ratio,
        "digits": digits(max(d.error for d in deviations)),
        "agrees": all(d.agrees for d in deviations),
    }
    wrong = [d for d in deviations if not d.agrees]
    if wrong:
        more = f", and {len(wrong) - 1} more of {len(deviations)} tensors" if wrong[1:] else ""
        raise Refused(f"differs: {furthest}{more}")


def compared_steps(contestant: Contestant) -> tuple[Values, Mapping[str, Any]]:
    """The results of the steps that the oracle has made too, from the start, and what is left."""
    contestant.steps.restart()
    results: list[Mapping[str, Any]] = []
    for index in contestant.case.compared:
        results += contestant.steps.values(index, 1)
    train = contestant.case.group.mode == "train" and not contestant.entry.baseline
    return results, contestant.steps.parameters() if train else {}


def _check_baseline(contestant: Contestant, found: Mapping[str, Any]) -> None:
    expected = contestant.case.expected.values
    errors = {n: _gap(a, expected[n]) for n, a in found.items() if n in expected}
    if not errors:
        raise Refused("differs: nothing was compared")
    furthest = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    error = errors[furthest]
    agrees = error <= BASELINE
    contestant.record.values = {"compared": len(errors), "worst": furthest, "error": error}
    if not agrees:
        raise Refused(f"differs: {furthest} is off by {error:.2e} (allowed: {BASELINE:.0e})")


def check_waits(contestant: Contestant) -> None:
    """Ten times the steps take ten times as long, and nothing is left to do after them.

    Raises:
        Refused: they do not.
    """
    tried = []
    for attempt in range(ATTEMPTS):
        tried.append(_scaling(contestant, SHORT * LONGER**attempt))
        # Once, another process may have held up just the one step after.
        if not _unconvincing(tried[-1]) or (attempt and _gross(tried[-1])):
            break
    contestant.record.waits = {**tried[-1], "attempts": len(tried)}
    reason = _unconvincing(tried[-1])
    if reason:
        raise Refused(f"does not wait for its work: {reason}")


def _scaling(contestant: Contestant, seconds: float) -> dict[str, Any]:
    count = contestant.steps_in(seconds, least=1)
    short, long, left, alone, worked = [], [], [], [], []
    for _ in range(TRIES):
        contestant.latencies(1)
        before = contestant.processor()
        short.append(contestant.throughput(count))
        between = contestant.processor()
        contestant.latencies(1)
        again = contestant.processor()
        long.append(contestant.throughput(FACTOR * count))
        worked.append((contestant.processor() - again) / max(between - before, 1e-9))
        # One step more takes as long as one after it, or something was still to be done.
        left.append(_one_step(contestant))
        alone.append(_one_step(contestant))
    return {
        "steps": count,
        "ratio": median(long) / median(short),
        "ratios": [a / b for a, b in zip(long, short, strict=True)],
        "processor_ratios": worked if contestant.device == "cpu" else [],
        "seconds": median(long),
        "step_after": min(left),
        "step_alone": min(alone),
    }


def _one_step(contestant: Contestant) -> float:
    """Seconds in which the worker answers with the result of a step, by its own outer clock."""
    return contestant.steps.seconds_of_values(contestant.take(1), 1)


def _unconvincing(found: Mapping[str, Any]) -> str:
    """Why a backend seems not to wait; empty if it does, or if noise could explain it.

    Noise goes both ways: a ratio speaks against a backend where every try lies on the same side.
    """
    least, most = FACTOR * (1 - LINEAR), FACTOR * (1 + LINEAR)
    # A busy machine lets short runs through and holds up long ones; that takes no processor's time.
    held_up = min(found["processor_ratios"], default=most + 1) <= most
    if max(found["ratios"]) < least or (min(found["ratios"]) > most and not held_up):
        return f"{FACTOR} times the steps take {found['ratio']:.3g} times as long"
    after, alone = found["step_after"], found["step_alone"]
    if after - alone > max(LINEAR * found["seconds"], alone):
        return (
            f"{FACTOR * found['steps']} steps are said to be done after {found['seconds']:.3g} s, "
            f"and one step more then takes {after:.3g} s instead of {alone:.3g} s"
        )
    return ""


def _gross(found: Mapping[str, Any]) -> bool:
    """Whether so much was left undone that longer runs would only leave more."""
    excess: float = found["step_after"] - found["step_alone"]
    return excess > FACTOR / 2 * float(found["step_alone"])


def check_again(contestant: Contestant) -> None:
    """After the timed rounds the results are still right.

    Raises:
        Refused: they are not.
    """
    first = contestant.record.values
    contestant.steps.feed(contestant.case.batches)
    check_values(contestant)
    contestant.record.values = {**first, "ratio_after": contestant.record.values.get("ratio")}


def check_hardware(contestant: Contestant, products: int, peak: float, seconds: float) -> None:
    """A step takes no less than its products need at several times the measured peak.

    Raises:
        Refused: it takes less.
    """
    least = products / (HARDWARE * peak)
    contestant.record.hardware = {"least_seconds": least, "peak": peak}
    if seconds < least:
        raise Refused(
            f"faster than the hardware: a step takes {seconds:.3g} s, and its matrix products at "
            f"{HARDWARE:g} times the measured peak take {least:.3g} s"
        )


def _gap(found: Any, expected: Any) -> float:
    """The largest deviation relative to the largest magnitude; inf where shapes differ."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return float("inf")
    scale = float(np.max(np.abs(expected))) or 1.0
    gap = float(np.max(np.abs(found - expected))) / scale
    return gap if np.isfinite(gap) else float("inf")
