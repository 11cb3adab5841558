"""Whether two samples of rounds differ by more than their spread."""

from __future__ import annotations

from collections.abc import Sequence

# Of all pairs of one round of each sample, this share must point the same way.
ONE_SIDED = 0.9


def beyond_noise(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether rounds of one sample are nearly always slower than those of the other.

    The share of pairs is the statistic of Mann and Whitney over its largest value.
    """
    pairs = [(a > b) + (a == b) / 2 for a in first for b in second]
    share = sum(pairs) / len(pairs)
    return max(share, 1 - share) >= ONE_SIDED
