"""Whether two samples of rounds differ by more than their spread."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

# Of all pairs of one round of each sample, this share must point the same way.
ONE_SIDED = 0.9


def beyond_noise(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether rounds of one sample are nearly always slower than those of the other.

    The share of pairs is the statistic of Mann and Whitney over its largest value.
    """
    others = sorted(second)
    # Of each pair 1 where the first is larger, and a half where they are equal.
    pairs = (bisect_left(others, a) + bisect_right(others, a) for a in first)
    share = sum(pairs) / 2 / (len(first) * len(second))
    return max(share, 1 - share) >= ONE_SIDED
