"""Orders of axes, as ``permute_dims`` has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

# The leading axes of a product of matrices: those that come before rows and columns.

D = TypeVar("D")


def leading_axes(shape: Sequence[D], count: int, one: D) -> tuple[D, ...]:
    """The leading axes of a side ``[..., rows, columns]``, as many as the product has; those that
    it lacks have ``one`` entry."""
    return (*(one,) * (count - len(shape) + 2), *shape[:-2])


def lone_axes(left: Sequence[D], right: Sequence[D], one: D) -> tuple[int, ...]:
    """Those that the right side lacks or has ``one`` entry along, and the left side has."""
    count = max(len(left), len(right)) - 2
    own, other = leading_axes(left, count, one), leading_axes(right, count, one)
    return tuple(a for a in range(count) if other[a] == one and own[a] != one)


Axes = tuple[int, ...]


def inverse(axes: Sequence[int]) -> Axes:
    """The permutation that undoes this one."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))
