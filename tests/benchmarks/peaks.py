"""The shares of a record's steps of the fastest products that any backend has shown in it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

PEAK = """`ratios.csv` compares the speed of a plan's matrix products with a peak: the speed of
the fastest backend on the same machine for a product of the same size. The product of a 64 x 256
and a 256 x 86 matrix has the size 64 x 256 x 86.

"""
# FLOP/s, and the backend that reached them.
Peak = tuple[float, str]


def peaks(pairs: Mapping[str, Any]) -> tuple[Peak | None, dict[tuple[int, ...], Peak]]:
    """The best of the large squares, and of each size that is the largest product of a model.

    A step that was faster than those is one itself.
    """
    large: Peak | None = None
    own: dict[tuple[int, ...], Peak] = {}
    for name, side in _sides(pairs):
        peak, size = side["peak"], tuple(side["peak"]["own_size"])
        step = side["products"] / median(side["seconds"]), f"a step of {name}"
        large = max(filter(None, (large, step, (peak["large"], peak["large_by"]))))
        own[size] = max(own.get(size, step), step, (peak["own"], peak["own_by"]))
    return large, own


def set_shares(pairs: Mapping[str, Any]) -> None:
    """Put the shares of both peaks beside each speed, of the products that a step has to make."""
    large, own = peaks(pairs)
    for _, side in _sides(pairs):
        rate = side["products"] / median(side["seconds"])
        assert large is not None
        side["share_of_peak"] = rate / large[0]
        side["share_of_own_peak"] = rate / own[tuple(side["peak"]["own_size"])][0]


def told(pairs: Mapping[str, Any]) -> str:
    """Return the peak of large squares, and of each model's largest product; '' without a peak."""
    large, own = peaks(pairs)
    if large is None:
        return ""
    lines = [f"- 2048 x 2048 x 2048: {_gigaflops(large)}"]
    lines += [f"- {' x '.join(map(str, s))}: {_gigaflops(peak)}" for s, peak in sorted(own.items())]
    return "\n".join(lines) + "\n"


def _gigaflops(peak: Peak) -> str:
    return f"{peak[0] / 1e9:.0f} ({peak[1]})"


def _sides(pairs: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Our side of each pair that has products and a peak, by name."""
    return [(n, p["ours"]) for n, p in pairs.items() if {"products", "peak"} <= p["ours"].keys()]
