"""Every result off by a unit in its last place: what cancellation makes of rounding.

Where terms cancel exactly in one way of writing an equation, another that is as right leaves their
rounding: ``x - mean(x)`` of a single row is 0, ``x * a - mean(x) * a`` is not. Orders of summation
do not show that; rounding at random does (Monte Carlo arithmetic, Parker 1997).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from harness.arrays import Array, ArrayDict, Arrays
from harness.oracle.kinks import ORDERED
from harness.oracle.oracle import TABLE, Oracle
from harness.oracle.tolerance import PRECISION, ROUNDOFF, without_size
from harness.runtime.precision import PRODUCTS, narrow, rounded_to

# What rounding does where attention is fused: in two places more than in its equations.
#
# The gradient of fused attention has its softmax as ``exp(x - log(sum(exp(x))))``, whose exponent
# is off by a last place of what is subtracted, so that no row sums to 1; and for the sum over
# each row of ``(dy @ values) * weights`` it has ``dy . (weights @ values)``, which is rounded at
# the size of its own terms (Dao et al. 2022, algorithm 4). Where a row is all but one-hot, the
# equations have neither error: a maximum is subtracted from itself, and so is an entry of the
# gradient.

# What softmax and its gradient are made of.
WATCHED = ("max", "subtract", "exp", "sum", "divide", "matmul", "multiply", "negative")
# What the next operation of a softmax is, after each.
NEXT = {"max": "subtract", "subtract": "exp", "exp": "sum", "sum": "divide"}
# What is further from 0 than this is a mask, and no shift.
FURTHEST = 1e6
# So many products are followed at once: those of a layer's gradient are made side by side.
RECENT_PRODUCTS = 4
# Units in the last place that a sum is off by, over the root of the number of its terms.
WALK = 0.3


def walked(terms: int) -> float:
    """The units in its last place that a sum of so many terms is off by, added one after the other
    (Higham 2002, 4.2)."""
    return float(max(1.0, WALK * terms**0.5))


@dataclass(frozen=True)
class _Softmax:
    """One that is under way: what was made last and by which op, and what it is shifted by."""

    op: str
    made: Array
    shift: Array


@dataclass(frozen=True)
class _Product:
    """A product of matrices, or what factors have made of it; ``size`` gives that of the terms
    behind each entry, and ``weighted`` says that a softmax is among the factors."""

    made: Array
    size: Callable[[], Array]
    weighted: bool = False


class Attention:
    """Watches the operations of an oracle; ``signs`` draws numbers of 1 and -1 of a shape."""

    def __init__(self, signs: Callable[[tuple[int, ...]], Array]) -> None:
        self._signs = signs
        self.begin()

    def begin(self) -> None:
        """Forget all that was seen."""
        self._softmax: _Softmax | None = None
        self._products: deque[_Product] = deque(maxlen=RECENT_PRODUCTS)
        self._weights: list[Array] = []

    def watched(self, op: str, function: Callable[..., Any]) -> Callable[..., Array]:
        """The function of an op; what it gives is off by more where attention would be."""

        def run(*arguments: Any, **attributes: Any) -> Array:
            y = np.asarray(function(*arguments, **attributes))
            if y.dtype.kind != "f":
                return y
            if op == "sum":
                y = self._off(y, *arguments, **attributes)
            self._follow_softmax(op, y, arguments)
            self._follow_product(op, y, arguments)
            return y

        return run

    def _off(self, y: Array, x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
        softmax = self._softmax
        product = self._product_of(x)
        if softmax is not None and x is softmax.made and y.size == softmax.shift.size:
            shift = np.abs(softmax.shift.reshape(y.shape))
            size = np.where(shift < FURTHEST, shift * y / 2, 0.0)
        elif product is not None and product.weighted:
            size = np.sum(product.size(), axis, keepdims=keepdims)
        else:
            return y
        return np.asarray(y + self._signs(y.shape) * np.finfo(y.dtype).eps * size, y.dtype)

    def _follow_softmax(self, op: str, y: Array, operands: tuple[Any, ...]) -> None:
        begun = self._softmax
        if op == "max":
            self._softmax = _Softmax(op, y, y)
        elif begun is not None and operands[-1] is begun.made and NEXT.get(begun.op) == op:
            self._softmax = _Softmax(op, y, begun.shift)
            if op == "divide":
                self._weights.append(y)

    def _follow_product(self, op: str, y: Array, operands: tuple[Any, ...]) -> None:
        if op == "matmul":
            a, b = operands
            units = walked(a.shape[-1])
            self._products.append(_Product(y, lambda: units * (np.abs(a) @ np.abs(b))))
        elif made := self._product_of(operands[0]):
            if op == "negative":
                self._products.append(_Product(y, made.size, made.weighted))
            elif op in ("divide", "multiply"):
                self._products.append(self._scaled(made, y, operands[1], op))

    def _product_of(self, made: Array) -> _Product | None:
        """The product that an array is, or was made of by factors; None of others."""
        return next((product for product in self._products if made is product.made), None)

    def _scaled(self, product: _Product, y: Array, factor: Any, op: str) -> _Product:
        with_factor = np.divide if op == "divide" else np.multiply
        weighted = product.weighted or any(factor is one for one in self._weights)
        return _Product(y, lambda: with_factor(product.size(), np.abs(factor)), weighted)


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
