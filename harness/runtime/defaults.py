"""Measurements of what a framework does where nothing is said, by entry of the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

Measured = bool | int | float | str
Probe = Callable[[], Measured]


class Probes(dict[str, Probe]):
    """The measurements of one framework, as its plugin gives them to :mod:`harness.defaults`.

    Each is a function without arguments, marked with ``@PROBES``; ``gru_reset`` belongs to the
    entry ``gru-reset``.
    """

    def __call__(self, function: Probe) -> Probe:
        """Keep a measurement under its name."""
        self[function.__name__.replace("_", "-")] = function
        return function

    def looked_up(self, row: Callable[[int], Measured]) -> None:
        """Keep what ``row`` finds in a table of three rows for an index that is too large, 3, and
        for a negative one, -1: a row's number, ``NaN`` or ``error``."""
        self["index-too-large"] = partial(row, 3)
        self["index-negative"] = partial(row, -1)
