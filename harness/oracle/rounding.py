"""Every result off by a unit in its last place: what cancellation makes of rounding.

Where terms cancel exactly in one way of writing an equation, another that is as right leaves their
rounding: ``x - mean(x)`` of a single row is 0, ``x * a - mean(x) * a`` is not. Orders of summation
do not show that; rounding at random does (Monte Carlo arithmetic, Parker 1997).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.oracle.attention import WATCHED, Attention, walked
from harness.oracle.kinks import ORDERED
from harness.oracle.oracle import TABLE, Oracle
from harness.oracle.tolerance import PRECISION, ROUNDOFF, without_size
from harness.runtime.precision import PRODUCTS, narrow, rounded_to

ROUNDED = (
    *("add", "subtract", "multiply", "divide", "power", "sqrt", "exp", "log", "tanh"),
    *("sum", "cumulative_sum", "matmul", "tensordot"),
)
# Of these, where libraries differ in a single number too.
ALONE = frozenset({"power", "exp", "log", "tanh"})
# The part of what such rounding does that counts: it is more than what any one library does.
SHARE = 0.25
SHAKEN = 2.0**-22
# Throws of the coins where a tensor that is nothing but rounding has no more numbers.
THROWS, LUCKY = 4, 8
# What makes whole numbers of whole numbers, up to the first that float32 has not; arrays of more
# numbers are data, and so are those that begin with so many others.
ENTRYWISE = frozenset({"add", "subtract", "multiply", "divide", "power"})
COUNTING = ENTRYWISE | {"sum", "cumulative_sum"}
MOST, FIRST = 1 << 16, 16
FARTHEST = 2.0**24
# What activations are made of, all within [-1, 1].
ACTIVE = ("tanh", "erf")


def _one(*_: Any, **__: Any) -> int:
    return 1


# How many terms each entry of a result is the sum of.
TERMS: Mapping[str, Callable[..., int]] = {
    "sum": lambda x, axis, keepdims: prod(x.shape[a] for a in axis),
    "cumulative_sum": lambda x: int(x.shape[-1]),
    "matmul": lambda a, b: int(a.shape[-1]),
    "tensordot": lambda a, b, axes: prod(a.shape[n] for n in axes[0]),
}


def _counted(op: str, arguments: Sequence[Any], y: Array) -> Array | None:
    """Where an operation counts: of whole numbers it makes whole numbers, which nobody rounds.
    None where it does so nowhere."""
    literal = op != "power" or np.ndim(arguments[1]) == 0
    if op not in COUNTING or not literal or y.size > MOST or not _whole(y.ravel()[:FIRST]).any():
        return None
    if op not in ENTRYWISE:
        return np.broadcast_to(np.all(_whole(arguments[0])), y.shape) & _whole(y)
    first, second = map(_whole, arguments)
    return first & second & _whole(y)


def _whole(given: Any) -> Array:
    numbers = np.asarray(given)
    return np.asarray((numbers == np.rint(numbers)) & (np.abs(numbers) < FARTHEST))


class Rounded(Oracle):
    """The oracle, each of its results a unit in the last place off, up or down by a coin; a long
    sum some more, and a product in a narrow dtype by a unit of that.

    Comparisons, and what sorts or steps, come out as they are told, in order: else those of equal
    operands would be turned. Where nothing is told they are made, and only products in a narrow
    dtype are off: terms that cancel to its last place leave a relu on either side, however far that
    is from its kink beside what is left, and counts and places stay whole numbers.
    """

    def __init__(self, dtype: str = "float64") -> None:
        super().__init__()
        self._attention = Attention(self._signs)
        self.begin(())
        decided = {op: self._decided(TABLE[op]) for op in (*ORDERED, "equal", "argsort", "floor")}
        off = {op: self._off(op, TERMS.get(op, _one)) for op in ROUNDED}
        if narrow(dtype):
            # Units of float32 would be rounded away again.
            off |= {op: self._coarsely_off(TABLE[op], dtype) for op in PRODUCTS}
        self._table = {**self._table, **off, **decided}
        self._table |= {op: self._attention.watched(op, self._table[op]) for op in WATCHED}

    def begin(self, decisions: Sequence[Array] | None, coins: int = 0) -> None:
        """Begin anew, with what the comparisons are to come to, and one of many throws of coins."""
        self._coins = np.random.default_rng(coins)
        self._decisions = None if decisions is None else iter(decisions)
        self._attention.begin()

    def _decided(self, compare: Callable[..., Any]) -> Callable[..., Any]:
        def run(*operands: Any) -> Any:
            return compare(*operands) if self._decisions is None else next(self._decisions)

        return run

    def _off(self, op: str, terms: Callable[..., int]) -> Callable[..., Array]:
        function, alone = TABLE[op], op in ALONE

        def run(*arguments: Any, **attributes: Any) -> Array:
            y = np.asarray(function(*arguments, **attributes))
            if y.dtype.kind != "f" or self._decisions is None:
                return y
            if not any(map(np.ndim, arguments)):
                # What is made of literals is the same for all: exponents, the bounds of a clip.
                if not alone or not y % 1:
                    return y
                if len(arguments) == 2:
                    # The base of a power of the step, such as 0.999, is held by some in float32
                    # and by others in float64, at all steps alike; 1 - beta ** t magnifies that.
                    base, exponent = arguments
                    return np.asarray(function(base * (1 + np.finfo(y.dtype).eps), exponent))
            off = self._nudge(y, np.finfo(y.dtype).eps * walked(terms(*arguments, **attributes)))
            counted = _counted(op, arguments, y)
            return off if counted is None else np.where(counted, y, off)

        return run

    def _coarsely_off(self, product: Callable[..., Any], dtype: str) -> Callable[..., Array]:
        """By as much as rounding to a narrow dtype does at most."""
        most = ROUNDOFF * PRECISION[dtype]
        return lambda *a, **attributes: self._nudge(np.asarray(product(*a, **attributes)), most)

    def _nudge(self, y: Array, size: float) -> Array:
        """So much of each number off, up or down: what is equal alike, as examples that repeat one
        another make the same error wherever they are computed, and no mean takes that away."""
        whole = np.dtype(f"u{y.itemsize}").type
        highest = 8 * y.itemsize - 1
        top, odd = whole(1 << highest), whole(self._coins.integers(1 << highest) | 1)
        made = np.array(y)
        bits = made.view(whole)
        bits *= odd  # of whose products the highest bit depends on all of them
        bits &= top
        bits |= np.asarray(size, y.dtype).view(whole)
        made += 1
        made *= y
        return made

    def _signs(self, shape: tuple[int, ...]) -> Array:
        count = prod(shape)
        bits = np.frombuffer(self._coins.bytes(-(-count // 8)), np.uint8)
        up = np.unpackbits(bits, count=count).reshape(shape).view(np.int8)
        return np.asarray(up * np.int8(2) - np.int8(1))


class Narrowed(Oracle):
    """The oracle, with more than products in a narrow dtype, as in a framework's own mixed
    precision: the results of activations, so that 1 - tanh(x) ** 2 has few digits where tanh(x) is
    near 1; and sums over examples, of which the gradient of a bias is one, and may be beyond it."""

    def __init__(self, dtype: str) -> None:
        super().__init__()

        def activation(function: Callable[..., Any]) -> Callable[..., Array]:
            return lambda x: rounded_to(np.asarray(function(x)), dtype)

        def total(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
            y = np.asarray(TABLE["sum"](x, axis=axis, keepdims=keepdims))
            floats = y.ndim and not keepdims and 0 in axis and y.dtype.kind == "f"
            return rounded_to(y, dtype) if floats else y

        self._table = {**self._table, **{op: activation(TABLE[op]) for op in ACTIVE}, "sum": total}


def lucky(values: Arrays) -> list[str]:
    """The tensors of few numbers that are nothing but rounding: by luck all of them may cancel in
    one throw of the coins, and what they are in another counts whole."""
    return [name for name in without_size(values) if values[name].size <= LUCKY]


def repeated(values: Arrays) -> bool:
    """Whether the rows of some output are one example's: few numbers then decide all that follows
    from them, and one throw of the coins may spare them."""
    outputs = (a for n, a in values.items() if n.startswith("output.") and a.ndim)
    return any(bool((a == a[:1]).all()) for a in outputs)


def shaken(parameters: Arrays, dtype: str, random: np.random.Generator) -> ArrayDict:
    """Parameters four units in the last place of a dtype off, up or down by a coin: what steps make
    of them shows what rounding does to a whole run, where no oracle follows."""
    size = SHAKEN * PRECISION[dtype]
    return {n: a * (1 + size * random.choice((-1.0, 1.0), a.shape)) for n, a in parameters.items()}
