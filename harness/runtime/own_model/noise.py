"""The spec's random numbers, which a user's model takes instead of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import numpy as np

from harness.arrays import Array
from harness.errors import UsageError, several
from harness.runtime.own_model.places import current_place

# The largest difference of two equal probabilities, one of which may be a float32 number.
SAME = 1e-6


class NoiseMisfit(UsageError):
    """Error: the spec's noise cannot replace the random numbers of a user's model."""


class GivenNoise:
    """The arrays that replace a model's random numbers: one per call that draws, in the order of
    the calls. An entry of dropout's array is 1 if dropout keeps the value, and 0 otherwise.

    Args:
        arrays: The arrays.
        keeps: The probability of a 1 in each array; None for another distribution.
    """

    def __init__(self, arrays: Sequence[Array], keeps: Sequence[float | None]) -> None:
        self._left = list(zip(arrays, keeps, strict=True))
        self._misfit = ""

    def take(self, shape: Sequence[int], keep: float | None = None) -> Array:
        """Return the next array in this shape.

        If the model draws one number for a whole axis of the spec's array, the model gets the first
        entry of this axis. If the model's probability ``keep`` of a 1 is not the spec's, the model
        gets 1 instead of 0 and 0 instead of 1. In both cases, its results differ.

        Raises:
            NoiseMisfit: there is no such array.
        """
        if self.is_empty:
            self.refuse("the model draws more random numbers than the spec")
        array, own = self._left.pop(0)
        if keep is not None and own is not None and abs(keep - own) > SAME:
            array = 1 - array
        shape, whole = tuple(int(n) for n in shape), list(array.shape)
        if len({*shape}) == len(shape) and sorted(shape) == sorted(array.shape):
            array = array.transpose([array.shape.index(length) for length in shape])
        elif len(shape) == array.ndim:
            array = array[tuple(slice(1 if n == 1 else None) for n in shape)]
        if not _is_merged(array.shape, shape):
            self.refuse(
                f"the model draws random numbers of shape {list(shape)}, the spec of shape {whole}"
            )
        return np.array(array).reshape(shape)

    @property
    def is_empty(self) -> bool:
        """True if no array is left."""
        return not self._left

    def refuse(self, reason: str) -> NoReturn:
        """Raise :class:`NoiseMisfit` with the reason and the user's line that draws, and again at
        the end of :meth:`checked`."""
        place = current_place()
        reason = f"{place}: {reason}" if place else reason
        self._misfit = self._misfit or reason
        raise NoiseMisfit(reason)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Check that the model takes all arrays inside this context.

        Raises:
            NoiseMisfit: an array is left, or :meth:`take` raised, even if the framework has
                replaced its exception.
        """
        try:
            yield
        except UsageError:
            if self._misfit:
                raise NoiseMisfit(self._misfit) from None
            raise
        if self._left:
            raise NoiseMisfit(
                f"the spec draws {several(len(self._left), 'random array')} more than the model"
            )


def _is_merged(first: Sequence[int], second: Sequence[int]) -> bool:
    """Return whether one shape is the other with merged neighbouring axes, e.g. batch and heads."""
    long, short = sorted((list(first), list(second)), key=len, reverse=True)
    for length in short:
        product = 1
        while long and product < length:
            product *= long.pop(0)
        if product != length:
            return False
    return all(length == 1 for length in long)
