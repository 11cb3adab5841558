"""Proof that a backend waits for its work: ten times the steps take ten times as long."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from statistics import median
from typing import Any

from harness.timing.contestant import Contestant, Refused
from harness.timing.proofs.unread_steps_take_time import LEAST

# 10 n steps must take 10 times as long as n, within this share.
LINEAR = 0.2
FACTOR = 10
TRIES = 3
# Seconds that the short runs take at first, and how much longer they get where the numbers are
# not convincing: noise goes away with length, a missing wait does not.
SHORT = 0.03
LONGER = 3
ATTEMPTS = 3


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
    left_early, waited = [], []
    for _ in range(TRIES):
        waited += contestant.latencies(1)
        before = contestant.processor()
        short.append(contestant.throughput(count))
        between = contestant.processor()
        left_early.append(_one_step(contestant))
        waited += contestant.latencies(1)
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
        "short": median(short) / count,
        "waited": min(waited),
        "step_after_short": min(left_early),
        "step_after": min(left),
        "step_alone": min(alone),
    }


def _one_step(contestant: Contestant) -> float:
    """Seconds in which the worker answers with the result of a step, by its own outer clock."""
    return contestant.seconds_of_values(contestant.take(1), 1)


def _unconvincing(found: Mapping[str, Any]) -> str:
    """Why a backend seems not to wait; empty if it does, or if noise could explain it.

    Noise goes both ways: a ratio speaks against a backend where every try lies on the same side.
    """
    least, most = FACTOR * (1 - LINEAR), FACTOR * (1 + LINEAR)
    if max(found["ratios"]) < least or (min(found["ratios"]) > most and not _held_up(found)):
        return f"{FACTOR} times the steps take {found['ratio']:.3g} times as long"
    after, alone = found["step_after"], found["step_alone"]
    if after - alone > max(LINEAR * found["seconds"], alone):
        return (
            f"{FACTOR * found['steps']} steps are said to be done after {found['seconds']:.3g} s, "
            f"and one step more then takes {after:.3g} s instead of {alone:.3g} s"
        )
    return ""


def _held_up(found: Mapping[str, Any]) -> bool:
    """Whether a busy machine has let short runs through and held up long ones: that takes no
    processor's time; or where threads wait at full speed, nothing was left to do after the short
    ones, and their steps took as long as one alone."""
    if min(found["processor_ratios"], default=inf) <= FACTOR * (1 + LINEAR):
        return True
    done: bool = found["step_after_short"] <= 2 * found["step_alone"]
    waited: bool = found["short"] >= LEAST * found["waited"]
    return done and waited


def _gross(found: Mapping[str, Any]) -> bool:
    """Whether so much was left undone that longer runs would only leave more."""
    excess: float = found["step_after"] - found["step_alone"]
    return excess > FACTOR / 2 * float(found["step_alone"])
