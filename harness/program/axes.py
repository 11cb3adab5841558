"""Functions for permutations of axes, and for the batch axes of matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

# The leading axes of a matrix product are the axes before its rows and columns.

D = TypeVar("D")


def leading_axes(shape: Sequence[D], count: int, unit: D) -> tuple[D, ...]:
    """Return the batch axes of a matrix product's operand: all axes of ``shape`` but the last two.
    If these are too few, axes of length ``unit`` (the dimension 1) are added in front until there
    are ``count``."""
    return (*(unit,) * (count - len(shape) + 2), *shape[:-2])


def lone_axes(left: Sequence[D], right: Sequence[D], unit: D) -> tuple[int, ...]:
    """Return the numbers of the batch axes (all but the last two) along which only the left operand
    of a matrix product varies: the right operand lacks these axes, or has length 1 along them.
    ``unit`` is the dimension 1, as an int or a symbolic dimension."""
    count = max(len(left), len(right)) - 2
    left_axes, right_axes = leading_axes(left, count, unit), leading_axes(right, count, unit)
    return tuple(a for a in range(count) if right_axes[a] == unit and left_axes[a] != unit)


Axes = tuple[int, ...]


def inverse(axes: Sequence[int]) -> Axes:
    """Return the inverse of the permutation ``axes``."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))
