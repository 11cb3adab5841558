"""Random rounding: each result is off by a unit in its last place.

Terms may cancel exactly in one form of an equation and leave their rounding error in an equally
correct form. For example, ``x - mean(x)`` of a single row is 0, but ``x * a - mean(x) * a`` is not.
Orders of summation do not show that. Random rounding does (Monte Carlo arithmetic, Parker 1997).
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

# Rounding errors of fused attention that its equations do not have.
#
# The gradient of fused attention computes its softmax as ``exp(x - log(sum(exp(x))))``. The
# exponent is off by a last place of the subtracted term, so no row sums to 1. For the sum over each
# row of ``(dy @ values) * weights`` it computes ``dy . (weights @ values)``, which is rounded at
# the size of its own terms (Dao et al. 2022, algorithm 4). If a row is nearly one-hot, the
# equations have neither error: a maximum is subtracted from itself, and so is an entry of the
# gradient.

# Operations of softmax and its gradient.
WATCHED = ("max", "subtract", "exp", "sum", "divide", "matmul", "multiply", "negative")
# The next operation of a softmax, after each.
NEXT = {"max": "subtract", "subtract": "exp", "exp": "sum", "sum": "divide"}
# A shift further from 0 than this is a mask.
FURTHEST = 1e6
# Number of products followed at once: a layer's gradient makes its products side by side.
RECENT_PRODUCTS = 4
# Error of a sum in units in the last place, over the square root of the number of its terms.
WALK = 0.3


def walked(terms: int) -> float:
    """Return the error of a sum of ``terms`` terms in units in its last place, added one after the
    other (Higham 2002, 4.2)."""
    return float(max(1.0, WALK * terms**0.5))


@dataclass(frozen=True)
class _Softmax:
    """A partially matched softmax: last op, its result, and the shift."""

    op: str
    made: Array
    shift: Array


@dataclass(frozen=True)
class _Product:
    """A matrix product, or its multiple by factors. ``size()`` returns the magnitude of the terms
    behind each entry. ``weighted`` is True if a softmax is among the factors."""

    made: Array
    size: Callable[[], Array]
    weighted: bool = False


class Attention:
    """The errors of fused attention, added to the operations of an oracle. ``signs(shape)`` draws
    an array of 1 and -1."""

    def __init__(self, signs: Callable[[tuple[int, ...]], Array]) -> None:
        self._signs = signs
        self.begin()

    def begin(self) -> None:
        """Forget all operations seen."""
        self._softmax: _Softmax | None = None
        self._products: deque[_Product] = deque(maxlen=RECENT_PRODUCTS)
        self._weights: list[Array] = []

    def watched(self, op: str, function: Callable[..., Any]) -> Callable[..., Array]:
        """Wrap the function of an op: its sums get the error that fused attention would add."""

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
        """Return the product that an array is, or is a multiple of; None for other arrays."""
        return next((product for product in self._products if made is product.made), None)

    def _scaled(self, product: _Product, y: Array, factor: Any, op: str) -> _Product:
        with_factor = np.divide if op == "divide" else np.multiply
        weighted = product.weighted or any(factor is one for one in self._weights)
        return _Product(y, lambda: with_factor(product.size(), np.abs(factor)), weighted)


ROUNDED = (
    *("add", "subtract", "multiply", "divide", "power", "sqrt", "exp", "log", "tanh"),
    *("sum", "cumulative_sum", "matmul", "tensordot"),
)
# Of these, operations in which libraries differ even for a single number.
ALONE = frozenset({"power", "exp", "log", "tanh"})
# The share of this error that counts, because it is larger than the error of any one library.
SHARE = 0.25
SHAKEN = 2.0**-22
# Runs with different coins, if a tensor of at most LUCKY numbers is only rounding error.
THROWS, LUCKY = 4, 8
# Operations that make whole numbers of whole numbers, up to the first that float32 lacks. An array
# of more than MOST numbers is data, and so is one without a whole number among its FIRST.
ENTRYWISE = frozenset({"add", "subtract", "multiply", "divide", "power"})
COUNTING = ENTRYWISE | {"sum", "cumulative_sum"}
MOST, FIRST = 1 << 16, 16
FARTHEST = 2.0**24
# Operations of activations, with results in [-1, 1].
ACTIVE = ("tanh", "erf")


def _one(*_: Any, **__: Any) -> int:
    return 1


# The number of terms that each entry of a result sums.
TERMS: Mapping[str, Callable[..., int]] = {
    "sum": lambda x, axis, keepdims: prod(x.shape[a] for a in axis),
    "cumulative_sum": lambda x: int(x.shape[-1]),
    "matmul": lambda a, b: int(a.shape[-1]),
    "tensordot": lambda a, b, axes: prod(a.shape[n] for n in axes[0]),
}


def _counted(op: str, arguments: Sequence[Any], y: Array) -> Array | None:
    """Return a mask of whole numbers made of whole numbers, which nobody rounds, or None."""
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
    """The oracle with random rounding: each result is off by a unit in its last place, by a coin.

    A long sum is off by more, and a product in a narrow dtype by a unit of that dtype. Comparisons,
    sorts and floors replay recorded decisions in order; otherwise comparisons of equal operands
    would be turned.

    Without decisions they are computed, and only products in a narrow dtype are off. Terms that
    cancel to the last place of that dtype then leave a relu on either side of its kink. Counts and
    places stay whole numbers.
    """

    def __init__(self, dtype: str = "float64") -> None:
        super().__init__()
        self._attention = Attention(self._signs)
        self.begin(())
        decided = {op: self._decided(TABLE[op]) for op in (*ORDERED, "equal", "argsort", "floor")}
        off = {op: self._off(op, TERMS.get(op, _one)) for op in ROUNDED}
        if narrow(dtype):
            # Rounding to the narrow dtype would remove units of float32 again.
            off |= {op: self._coarsely_off(TABLE[op], dtype) for op in PRODUCTS}
        self._table = {**self._table, **off, **decided}
        self._table |= {op: self._attention.watched(op, self._table[op]) for op in WATCHED}

    def begin(self, decisions: Sequence[Array] | None, coins: int = 0) -> None:
        """Start a run with recorded decisions, or None, and a seed of the coins."""
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
                # All implementations compute the same from literals (exponents, bounds of a clip).
                if not alone or not y % 1:
                    return y
                if len(arguments) == 2:
                    # Some frameworks hold the base of a power of the step, such as 0.999, in
                    # float32 and others in float64, for all steps; 1 - beta ** t magnifies the
                    # difference.
                    base, exponent = arguments
                    return np.asarray(function(base * (1 + np.finfo(y.dtype).eps), exponent))
            off = self._nudge(y, np.finfo(y.dtype).eps * walked(terms(*arguments, **attributes)))
            counted = _counted(op, arguments, y)
            return off if counted is None else np.where(counted, y, off)

        return run

    def _coarsely_off(self, product: Callable[..., Any], dtype: str) -> Callable[..., Array]:
        """Perturb a product by the largest rounding error of a narrow dtype."""
        most = ROUNDOFF * PRECISION[dtype]
        return lambda *a, **attributes: self._nudge(np.asarray(product(*a, **attributes)), most)

    def _nudge(self, y: Array, size: float) -> Array:
        """Move each number up or down by the relative ``size``. Equal numbers move alike: repeated
        examples make the same error wherever they are computed, and no mean cancels that error."""
        whole = np.dtype(f"u{y.itemsize}").type
        highest = 8 * y.itemsize - 1
        top, odd = whole(1 << highest), whole(self._coins.integers(1 << highest) | 1)
        made = np.array(y)
        bits = made.view(whole)
        bits *= odd  # the highest bit of the product depends on all bits
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
    """The oracle with more than products in a narrow dtype, as in mixed precision of frameworks.

    The results of activations are rounded, so 1 - tanh(x) ** 2 has few digits if tanh(x) is near 1.
    Sums over examples are rounded, such as the gradient of a bias, and may overflow.
    """

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
    """Return the tensors of few numbers that are only rounding error. By luck all these errors may
    cancel in one random run, so the errors of the other runs count in full."""
    return [name for name in without_size(values) if values[name].size <= LUCKY]


def repeated(values: Arrays) -> bool:
    """Return whether all rows of some output are equal. Few numbers then decide all later ones, and
    one random run may spare them."""
    outputs = (a for n, a in values.items() if n.startswith("output.") and a.ndim)
    return any(bool((a == a[:1]).all()) for a in outputs)


def shaken(parameters: Arrays, dtype: str, random: np.random.Generator) -> ArrayDict:
    """Return the parameters four units in the last place of a dtype off, up or down by a coin.
    Training from them shows the effect of rounding on a whole run, which no oracle follows."""
    size = SHAKEN * PRECISION[dtype]
    return {n: a * (1 + size * random.choice((-1.0, 1.0), a.shape)) for n, a in parameters.items()}
