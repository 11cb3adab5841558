"""Decide how much faster one sample of rounds is than another, and which figures are noise."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

# A figure is unreliable if half its interquartile range exceeds this share of the median. The
# default of ``--threshold`` is the same share.
SPREAD = 0.1
# The most load from other processes, as a share of the cores.
BUSY = 0.5
WORTHLESS = "not to be relied on"


@dataclass(frozen=True)
class Load:
    """Load averages of one minute before and after a group, and the run's own part of each."""

    start: float
    own_at_start: float
    end: float
    own: float

    @staticmethod
    def now() -> float:
        """Return the load average of the last minute."""
        return os.getloadavg()[0]


def spread_of(quartiles: Mapping[str, float]) -> float:
    """Return half the interquartile range over the median."""
    return (quartiles["q3"] - quartiles["q1"]) / 2 / quartiles["median"]


def warning(load: float, cores: int) -> str:
    """Return a warning if the machine is busy before anything is timed, else an empty text."""
    if load <= BUSY * cores:
        return ""
    return (
        f"warning: the machine has other work already, a load of {load:.1f} on {cores} cores: "
        "speeds will not be relied on until that is done"
    )


def doubts(rate: Mapping[str, float], load: Load, cores: int) -> list[str]:
    """Return the reasons why a figure is unreliable; empty if it is reliable."""
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
    """Describe the load from other processes while a group was timed; empty if there was none."""
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
    """Return whether one of the doubts is about the figure itself."""
    return any(doubt.startswith(WORTHLESS) for doubt in doubts)


CONFIDENCE = 0.95


@dataclass(frozen=True)
class SpeedRatio:
    """A ratio of geometric means with its 95% confidence interval: 0 to infinity for one round."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """True if the interval excludes 1, so that one side is faster."""
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
    """Return the speed of rounds relative to ``base``, by a t-test on the logarithms.

    ``paired`` rounds were measured in turn, so that a disturbance slowed both: they get a paired
    test if their numbers are equal. Others get Welch's test.
    """
    new, old = np.log(seconds), np.log(base)
    value = math.exp(old.mean() - new.mean())
    paired = paired and len(new) == len(old)
    spread = np.ptp(old - new) if paired else max(np.ptp(old), np.ptp(new))
    if min(len(new), len(old)) < 2:
        return SpeedRatio(value, 0.0, math.inf)
    if spread < 1e-12:  # no variation: no uncertainty
        return SpeedRatio(value, value, value)
    from scipy import stats  # takes a second to import

    with warnings.catch_warnings():
        # "The data are nearly identical": the interval is as narrow as it should be.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_rel if paired else partial(stats.ttest_ind, equal_var=False)
        found = test(old, new)
        low, high = found.confidence_interval(CONFIDENCE)
    # A huge spread would overflow the exponential.
    low, high = (float(np.exp(np.clip(bound, -700.0, 700.0))) for bound in (low, high))
    return SpeedRatio(value, low, high)


def beyond_noise(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether rounds that were measured in turn show that one side is faster."""
    return speed(first, second, paired=True).known


def _digits(value: float, width: float) -> str:
    """Format a value with as many digits as the interval leaves, and at least two."""
    size = min(width, abs(value) / 10) or abs(value) / 1000
    places = max(0, -math.floor(math.log10(size)))
    return f"{value:.{min(places, 12)}f}"
