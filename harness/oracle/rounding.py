"""Every result off by a unit in its last place: what cancellation makes of rounding.

Where terms cancel exactly in one way of writing an equation, another that is as right leaves their
rounding: ``x - mean(x)`` of a single row is 0, ``x * a - mean(x) * a`` is not. Orders of summation
do not show that; rounding at random does (Monte Carlo arithmetic, Parker 1997).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from harness.arrays import Array
from harness.oracle.kinks import ORDERED
from harness.oracle.oracle import TABLE, Oracle

ROUNDED = (
    *("add", "subtract", "multiply", "divide", "power", "sqrt", "exp", "log", "tanh"),
    *("sum", "matmul", "tensordot"),
)
# The part of what such rounding does that counts: it is more than what any one library does.
SHARE = 0.25


class Rounded(Oracle):
    """The oracle, each of its results one unit in the last place off, up or down by a coin.

    Comparisons come out as they are told, in order: else those of equal operands would be turned.
    """

    def __init__(self, decisions: Sequence[Array]) -> None:
        super().__init__()
        self._coins = np.random.default_rng(0)
        self._decisions = iter(decisions)
        decided = dict.fromkeys((*ORDERED, "equal"), lambda a, b: next(self._decisions))
        functions = {**{op: TABLE[op] for op in ROUNDED}, "power": _power}
        off = {op: self._off(function) for op, function in functions.items()}
        self._table = {**self._table, **off, **decided}

    def _off(self, function: Callable[..., Any]) -> Callable[..., Array]:
        def run(*arguments: Any, **attributes: Any) -> Array:
            y = np.asarray(function(*arguments, **attributes))
            if y.dtype.kind != "f":
                return y
            up = self._coins.integers(0, 2, y.shape, dtype=bool)
            eps = np.finfo(y.dtype).eps
            return np.asarray(y * np.where(up, 1 + eps, 1 - eps), y.dtype)

        return run


def _power(x: Array, exponent: Array) -> Array:
    """Of an exponent that was whole before it was rounded: a root of negatives is none."""
    whole = np.rint(exponent)
    near = np.abs(exponent - whole) <= 8 * np.finfo(x.dtype).eps * np.abs(whole)
    return np.asarray(TABLE["power"](x, np.where(near, whole, exponent)))
