"""Orders of axes for ``permute_dims``, and leading axes of matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

# Leading axes of a matrix product come before its rows and columns.

D = TypeVar("D")


def leading_axes(shape: Sequence[D], count: int, one: D) -> tuple[D, ...]:
    """Return the ``count`` leading axes of a side ``[..., rows, columns]``, filled up with
    ``one``."""
    return (*(one,) * (count - len(shape) + 2), *shape[:-2])


def lone_axes(left: Sequence[D], right: Sequence[D], one: D) -> tuple[int, ...]:
    """Return the leading axes that the left side has, and the right side lacks or has as
    ``one``."""
    count = max(len(left), len(right)) - 2
    own, other = leading_axes(left, count, one), leading_axes(right, count, one)
    return tuple(a for a in range(count) if other[a] == one and own[a] != one)


Axes = tuple[int, ...]


def inverse(axes: Sequence[int]) -> Axes:
    """Return the permutation that undoes this one."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))
