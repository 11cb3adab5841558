"""How much faster one sample of rounds is than another, and when a figure is worthless."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

# Half the range between the quartiles, relative to the median, from which on nothing can be told
# from it: as much as ``--threshold`` calls a change.
SPREAD = 0.1
# Load beyond the run's own, as a share of the cores.
BUSY = 0.5
WORTHLESS = "not to be relied on"


@dataclass(frozen=True)
class Load:
    """Load averages of a minute, before and after a group, and what of them is the run's own."""

    start: float
    own_at_start: float
    end: float
    own: float

    @staticmethod
    def now() -> float:
        """That of the last minute."""
        return os.getloadavg()[0]


def spread_of(quartiles: Mapping[str, float]) -> float:
    """Half the range between the quartiles over the median."""
    return (quartiles["q3"] - quartiles["q1"]) / 2 / quartiles["median"]


def warning(load: float, cores: int) -> str:
    """What is to be said before anything is timed on a machine that is busy; empty if it is not."""
    if load <= BUSY * cores:
        return ""
    return (
        f"warning: the machine has other work already, a load of {load:.1f} on {cores} cores: "
        "speeds will not be relied on until that is done"
    )


def doubts(rate: Mapping[str, float], load: Load, cores: int) -> list[str]:
    """Why a figure is not to be relied on, in words; nothing if it is."""
    found = []
    if spread_of(rate) > SPREAD:
        found.append(
            f"{WORTHLESS}: its rounds lie ±{spread_of(rate):.0%} apart "
            f"(up to {SPREAD:.0%} is a figure); measure it again, with more --rounds"
        )
    if other := other_work(load, cores):
        found.append(f"{WORTHLESS}: {other}")
    return found


def other_work(load: Load, cores: int) -> str:
    """What else the machine did while a group was timed, in words; empty if it was nothing."""
    for when, total, own in (
        ("before", load.start, load.own_at_start),
        ("after", load.end, load.own),
    ):
        if total - own > BUSY * cores:
            part = f", of which the run itself makes up to {own:.0f}" if round(own) else ""
            return (
                f"the machine had other work, a load of {total:.1f} on "
                f"{cores} cores {when} it was timed{part}"
            )
    return ""


def worthless(doubts: Sequence[str]) -> bool:
    """Whether one of the doubts is about the figure itself."""
    return any(doubt.startswith(WORTHLESS) for doubt in doubts)


CONFIDENCE = 0.95


@dataclass(frozen=True)
class SpeedRatio:
    """How many times as fast: the ratio of geometric means, and its 95% confidence interval.

    Of a single round nothing is known: the interval is from 0 to infinity.
    """

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether the interval tells that one is faster."""
        return not self.low <= 1.0 <= self.high

    def __str__(self) -> str:
        if not math.isfinite(self.high):
            return (
                f"{_digits(self.value, self.value)} times (of one round: nobody knows how surely)"
            )
        width = self.high - self.low
        value, low, high = (_digits(v, width) for v in (self.value, self.low, self.high))
        return f"{value} times ({low} to {high})"


def speed(seconds: Sequence[float], base: Sequence[float], *, paired: bool = False) -> SpeedRatio:
    """How fast rounds are relative to those of ``base``, by Welch's t-test on the logarithms.

    ``paired`` rounds were measured in turn, each beside its partner: what slowed a round slowed
    both.
    """
    new, old = np.log(seconds), np.log(base)
    value = math.exp(old.mean() - new.mean())
    paired = paired and len(new) == len(old)
    spread = np.ptp(old - new) if paired else max(np.ptp(old), np.ptp(new))
    if min(len(new), len(old)) < 2:
        return SpeedRatio(value, 0.0, math.inf)
    if spread < 1e-12:  # as in made numbers: there is nothing to be unsure of
        return SpeedRatio(value, value, value)
    from scipy import stats  # which takes a second to import

    with warnings.catch_warnings():
        # "The data are nearly identical": the interval is as narrow as it should be.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_rel if paired else partial(stats.ttest_ind, equal_var=False)
        found = test(old, new)
        low, high = found.confidence_interval(CONFIDENCE)
    # A spread of days gives numbers that nothing can hold.
    low, high = (float(np.exp(np.clip(bound, -700.0, 700.0))) for bound in (low, high))
    return SpeedRatio(value, low, high)


def beyond_noise(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether rounds that were measured in turn tell that one is faster."""
    return speed(first, second, paired=True).known


def _digits(value: float, width: float) -> str:
    """As many digits as the width of the interval leaves, and two at least."""
    size = min(width, abs(value) / 10) or abs(value) / 1000
    places = max(0, -math.floor(math.log10(size)))
    return f"{value:.{min(places, 12)}f}"
