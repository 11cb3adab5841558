"""What makes a figure worthless though all was proved: its spread, or the machine's other work."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
