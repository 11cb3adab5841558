"""Measurements of what a framework does where nothing is said, by entry of the catalogue."""

from __future__ import annotations

from collections.abc import Callable

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
