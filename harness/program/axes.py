"""Functions for permutations of axes, and for the leading axes of matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

# The leading axes of a matrix product are the axes before its rows and columns.

D = TypeVar("D")


def leading_axes(shape: Sequence[D], count: int, one: D) -> tuple[D, ...]:
    """Return the leading axes of an operand of shape ``[..., rows, columns]``, with ``one`` for
    missing axes, so that there are ``count`` axes."""
    return (*(one,) * (count - len(shape) + 2), *shape[:-2])


def lone_axes(left: Sequence[D], right: Sequence[D], one: D) -> tuple[int, ...]:
    """Return the leading axes of a product along which only the left operand varies: the right
    operand lacks the axis, or has the length ``one`` there."""
    count = max(len(left), len(right)) - 2
    own, other = leading_axes(left, count, one), leading_axes(right, count, one)
    return tuple(a for a in range(count) if other[a] == one and own[a] != one)


Axes = tuple[int, ...]


def inverse(axes: Sequence[int]) -> Axes:
    """Return the inverse of the permutation ``axes``."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))
