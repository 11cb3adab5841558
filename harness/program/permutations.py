"""Orders of axes, as ``permute_dims`` has them."""

from __future__ import annotations

from collections.abc import Sequence

Axes = tuple[int, ...]


def inverse(axes: Sequence[int]) -> Axes:
    """The permutation that undoes this one."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))
