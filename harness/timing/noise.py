"""Statistics of speeds: the ratio of two speeds with a confidence interval, and the reasons why a
speed is unreliable."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.files.system import load_averages

# A speed is unreliable if half the interquartile range of its rounds exceeds this share of their
# median. ``--threshold`` has the same default.
SPREAD = 0.1
# The allowed load from other processes, per core.
BUSY = 0.5
UNRELIABLE = "not to be relied on"
ROUGH = f"{UNRELIABLE}: rough, because --quick times few rounds"


@dataclass(frozen=True)
class Load:
    """The load average of the machine over one minute, before (``start``) and after (``end``) a
    group is timed.

    The run itself adds to the load: at most ``own_at_start`` to ``start``, and at most ``own`` to
    ``end``.
    """

    start: float
    own_at_start: float
    end: float
    own: float

    @staticmethod
    def now() -> float:
        """Return the load average of the machine over the last minute."""
        return load_averages()[0]


def spread_of(quartiles: Mapping[str, float]) -> float:
    """Return half the interquartile range divided by the median, a relative measure of noise.

    ``quartiles`` has the keys ``median``, ``q1`` and ``q3``.
    """
    return (quartiles["q3"] - quartiles["q1"]) / 2 / quartiles["median"]


def warn_if_busy(load: float, cores: int) -> str:
    """Return a warning if ``load``, the load average before the timing starts, is high for a
    machine with ``cores`` cores; else return an empty text."""
    if load <= BUSY * cores:
        return ""
    return (
        f"warning: load {load:.1f} on {cores} cores: "
        "speeds measured now are marked as not to be relied on"
    )


def find_doubts(rate: Mapping[str, float], load: Load, cores: int) -> list[str]:
    """Return the reasons why a speed is unreliable: its rounds vary too much, or other processes
    were running. The list is empty if the speed is reliable.

    ``rate`` has the quartiles of the speed over the rounds (keys as in :func:`.rates.spread`).
    """
    reasons = []
    if spread_of(rate) > SPREAD:
        reasons.append(
            f"{UNRELIABLE}: its rounds vary by ±{spread_of(rate):.0%} "
            f"(allowed: ±{SPREAD:.0%}); measure it again with more --rounds"
        )
    if other := describe_other_load(load, cores):
        reasons.append(f"{UNRELIABLE}: {other}")
    return reasons


def describe_other_load(load: Load, cores: int) -> str:
    """Describe the load that other processes caused before or after a group was timed. Return an
    empty text if it was low for ``cores`` cores."""
    for when, total, own in (
        ("before", load.start, load.own_at_start),
        ("after", load.end, load.own),
    ):
        if total - own > BUSY * cores:
            part = f", of which this run itself may cause up to {own:.0f}" if round(own) else ""
            return (
                f"other processes were running: load {total:.1f} on "
                f"{cores} cores {when} the timing{part}"
            )
    return ""


def is_unreliable(doubts: Sequence[str]) -> bool:
    """Return whether one of the remarks ``doubts`` says that the speed is unreliable."""
    return any(doubt.startswith(UNRELIABLE) for doubt in doubts)


CONFIDENCE = 0.95


@dataclass(frozen=True)
class SpeedRatio:
    """The ratio of two speeds (``value``) with its 95% confidence interval (``low`` to ``high``).

    If one of the two speeds comes from a single round, the interval is 0 to infinity.
    """

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """True if the confidence interval does not contain 1, i.e. if one of the two speeds is
        clearly higher."""
        return not self.low <= 1.0 <= self.high

    def __str__(self) -> str:
        if not math.isfinite(self.high):
            return (
                f"{_format_ratio(self.value, self.value)} times (one round: no confidence interval)"
            )
        width = self.high - self.low
        value, low, high = (_format_ratio(v, width) for v in (self.value, self.low, self.high))
        return f"{value} times ({low} to {high})"


def compare_rounds(
    seconds: Sequence[float], base: Sequence[float], *, paired: bool = False
) -> SpeedRatio:
    """Return the speed of ``seconds`` divided by the speed of ``base``; both lists have the seconds
    per step of each round.

    The confidence interval comes from a t-test on logarithms. Use ``paired`` if the rounds of the
    two lists were timed in turn, because then a disturbance slowed both. If the lists are equally
    long, the test is then a paired t-test. In all other cases it is Welch's test.
    """
    new, old = np.log(seconds), np.log(base)
    value = math.exp(old.mean() - new.mean())
    paired = paired and len(new) == len(old)
    spread = np.ptp(old - new) if paired else max(np.ptp(old), np.ptp(new))
    if min(len(new), len(old)) < 2:
        return SpeedRatio(value, 0.0, math.inf)
    if spread < 1e-12:  # no variation, so no uncertainty
        return SpeedRatio(value, value, value)
    from scipy import stats  # slow import: about a second

    with warnings.catch_warnings():
        # scipy warns about nearly identical data, but the narrow interval is right.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_rel if paired else partial(stats.ttest_ind, equal_var=False)
        test_result = test(old, new)
        low, high = test_result.confidence_interval(CONFIDENCE)
    # Clip the bounds, because ``exp`` overflows if the spread is huge.
    low, high = (float(np.exp(np.clip(bound, -700.0, 700.0))) for bound in (low, high))
    return SpeedRatio(value, low, high)


def beyond_noise(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether one of two lists, ``first`` and ``second``, is clearly faster than the other.
    Each has the seconds per step of each round, and their rounds must have been timed in turn."""
    return compare_rounds(first, second, paired=True).known


def _format_ratio(value: float, width: float) -> str:
    """Format the ratio ``value`` with as many digits as its confidence interval of the given
    ``width`` justifies, at least two."""
    size = min(width, abs(value) / 10) or abs(value) / 1000
    places = max(0, -math.floor(math.log10(size)))
    return f"{value:.{min(places, 12)}f}"
