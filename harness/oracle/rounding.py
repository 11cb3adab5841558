"""Random rounding: each result is changed by one unit in its last place, up or down.

There are several correct ways to write an equation, and terms may cancel exactly in only one of
them. For example, ``x - mean(x)`` of a single row is 0, but ``x * a - mean(x) * a`` may leave a
rounding error. Random rounding measures such errors (Monte Carlo arithmetic, Parker 1997); a
different order of summation does not show them.
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
from harness.oracle.tolerance import PRECISION, ROUNDOFF, rounding_only
from harness.runtime.precision import PRODUCTS, narrow, rounded_to

# Rounding errors that fused attention has and the equations of attention do not have.
#
# The gradient of fused attention computes its softmax as ``exp(x - log(sum(exp(x))))``. The
# exponent has a rounding error as large as that of the subtracted term, so rows do not sum exactly
# to 1. Instead of the sum over each row of ``(dy @ values) * weights``, fused attention computes
# ``dy . (weights @ values)``, whose rounding error depends on the size of other terms (Dao et al.
# 2022, algorithm 4). If a row is nearly one-hot, the equations have neither error, because they
# subtract a maximum from itself and an entry of the gradient from itself.

# Operations of softmax and its gradient, and of the mask after a softmax.
WATCHED = ("max", "subtract", "exp", "sum", "divide", "matmul", "multiply", "negative", "where")
# The operation that follows each operation in a softmax.
NEXT = {"max": "subtract", "subtract": "exp", "exp": "sum", "sum": "divide"}
# A maximum with a larger magnitude than this comes from a mask.
FURTHEST = 1e6
# Number of matrix products that are tracked at a time, because a layer's gradient computes several
# products before it uses them.
RECENT_PRODUCTS = 4
# Rounding error of a sum of n terms, in units in the last place, divided by sqrt(n).
SUM_ERROR = 0.3


def sum_error(terms: int) -> float:
    """Return the typical rounding error of a sum of ``terms`` terms that are added one by one, in
    units in the last place of the sum (Higham 2002, 4.2)."""
    return float(max(1.0, SUM_ERROR * terms**0.5))


@dataclass(frozen=True)
class _Softmax:
    """A softmax of which some operations have been recognised so far: ``op`` is the name of the
    last one, and ``result`` its result. ``shift`` is the maximum that the softmax subtracts."""

    op: str
    result: Array
    shift: Array


@dataclass(frozen=True)
class _Product:
    """A matrix product, possibly multiplied or divided by other arrays. ``size()`` returns the sum
    of the magnitudes of the terms of each entry. ``weighted`` is True if one factor is a softmax.
    """

    result: Array
    size: Callable[[], Array]
    weighted: bool = False


class Attention:
    """A wrapper of the oracle's operations. It recognises attention (a softmax between two matrix
    products), and adds the rounding errors that a fused attention kernel has. ``signs(shape)``
    draws a random array of 1 and -1."""

    def __init__(self, signs: Callable[[tuple[int, ...]], Array]) -> None:
        self._signs = signs
        self.begin()

    def begin(self) -> None:
        """Delete the record of recent operations, before a new run of a program."""
        self._softmax: _Softmax | None = None
        self._products: deque[_Product] = deque(maxlen=RECENT_PRODUCTS)
        self._weights: list[Array] = []

    def wrap(self, op: str, function: Callable[..., Any]) -> Callable[..., Array]:
        """Wrap the function of an operation, so that sums in attention get the rounding error of a
        fused attention kernel."""

        def run(*arguments: Any, **attributes: Any) -> Array:
            y = np.asarray(function(*arguments, **attributes))
            if y.dtype.kind != "f":
                return y
            if op == "sum":
                y = self._with_attention_error(y, *arguments, **attributes)
            self._follow_softmax(op, y, arguments)
            self._follow_product(op, y, arguments)
            return y

        return run

    def _with_attention_error(
        self, y: Array, x: Array, axis: tuple[int, ...], keepdims: bool
    ) -> Array:
        """Add the rounding error of a fused attention kernel to ``y``, the result of a sum over
        ``x``. If the sum is not in attention, return ``y`` unchanged."""
        softmax = self._softmax
        product = self._product_of(x)
        if softmax is not None and x is softmax.result and y.size == softmax.shift.size:
            shift = np.abs(softmax.shift.reshape(y.shape))
            size = np.where(shift < FURTHEST, shift * y / 2, 0.0)
        elif product is not None and product.weighted:
            size = np.sum(product.size(), axis, keepdims=keepdims)
        else:
            return y
        return np.asarray(y + self._signs(y.shape) * np.finfo(y.dtype).eps * size, y.dtype)

    def _follow_softmax(self, op: str, y: Array, operands: tuple[Any, ...]) -> None:
        softmax = self._softmax
        if op == "max":
            self._softmax = _Softmax(op, y, y)
        elif softmax is not None and operands[-1] is softmax.result and NEXT.get(softmax.op) == op:
            self._softmax = _Softmax(op, y, softmax.shift)
            if op == "divide":
                self._weights.append(y)

    def _follow_product(self, op: str, y: Array, operands: tuple[Any, ...]) -> None:
        if op == "matmul":
            a, b = operands
            units = sum_error(a.shape[-1])
            self._products.append(_Product(y, lambda: units * (np.abs(a) @ np.abs(b))))
        elif op == "where":
            chosen, masked = operands[0], self._product_of(operands[1])
            if masked is not None:
                size = masked.size
                own = _Product(y, lambda: np.where(chosen, size(), 0.0), masked.weighted)
                self._products.append(own)
        elif product := self._product_of(operands[0]):
            if op == "negative":
                self._products.append(_Product(y, product.size, product.weighted))
            elif op in ("divide", "multiply"):
                self._products.append(self._scaled(product, y, operands[1], op))

    def _product_of(self, array: Array) -> _Product | None:
        """Return the product, among recent matrix products, whose result is this very array object;
        None if there is no such product."""
        return next((product for product in self._products if array is product.result), None)

    def _scaled(self, product: _Product, y: Array, factor: Any, op: str) -> _Product:
        with_factor = np.divide if op == "divide" else np.multiply
        weighted = product.weighted or any(factor is weights for weights in self._weights)
        return _Product(y, lambda: with_factor(product.size(), np.abs(factor)), weighted)


ROUNDED = (
    *("add", "subtract", "multiply", "divide", "power", "sqrt", "exp", "log", "tanh"),
    *("sum", "cumulative_sum", "matmul", "tensordot"),
)
# Operations whose results differ between libraries even for a single number.
LIBRARY_DEPENDENT = frozenset({"power", "exp", "log", "tanh"})
# Factor for the error of a run with random rounding, which is larger than that of any library.
SHARE = 0.25
PERTURBATION = 2.0**-22
# Number of runs with different random signs if a tensor of at most FEW_ENTRIES numbers consists
# only of rounding errors.
REPETITIONS, FEW_ENTRIES = 4, 8
# Operations that can return exact integers if their operands are integers below FARTHEST, the limit
# of float32. Results are not tested for integers if they have more than MOST entries, or if no
# integer is among their FIRST entries.
ENTRYWISE = frozenset({"add", "subtract", "multiply", "divide", "power"})
COUNTING = ENTRYWISE | {"sum", "cumulative_sum"}
MOST, FIRST = 1 << 16, 16
FARTHEST = 2.0**24
# Activation functions with results in [-1, 1].
ACTIVE = ("tanh", "erf")


def _single_term(*_: Any, **__: Any) -> int:
    return 1


# Functions that return how many terms are summed for each entry of an operation's result.
TERMS: Mapping[str, Callable[..., int]] = {
    "sum": lambda x, axis, keepdims: prod(x.shape[a] for a in axis),
    "cumulative_sum": lambda x: int(x.shape[-1]),
    "matmul": lambda a, b: int(a.shape[-1]),
    "tensordot": lambda a, b, axes: prod(a.shape[n] for n in axes[0]),
}


def _exact_integers(op: str, arguments: Sequence[Any], y: Array) -> Array | None:
    """Return a boolean mask: True for the entries of ``y`` that are integers computed exactly from
    integers, and so have no rounding error. Return None if the operation ``op`` or its result is
    not tested for integers."""
    literal = op != "power" or np.ndim(arguments[1]) == 0
    if (
        op not in COUNTING
        or not literal
        or y.size > MOST
        or not _are_integers(y.ravel()[:FIRST]).any()
    ):
        return None
    if op not in ENTRYWISE:
        return np.broadcast_to(np.all(_are_integers(arguments[0])), y.shape) & _are_integers(y)
    first, second = map(_are_integers, arguments)
    return first & second & _are_integers(y)


def _are_integers(values: Any) -> Array:
    numbers = np.asarray(values)
    return np.asarray((numbers == np.rint(numbers)) & (np.abs(numbers) < FARTHEST))


class Rounded(Oracle):
    """The oracle with random rounding: each result is moved up or down by a unit in its last place.

    Results of long sums are moved by more than one unit. Matrix products in a narrow dtype (e.g.
    bfloat16) are moved by the rounding error of this dtype. Exact integers such as counts and
    positions are not moved. Comparisons, sorts and floors return the results that were recorded in
    an earlier run, because rounding would otherwise change comparisons of equal operands.

    If no results were recorded, comparisons are computed, and only matrix products in a narrow
    dtype are moved. If the input of a relu is 0 except for rounding errors, it may then have either
    sign.
    """

    def __init__(self, dtype: str = "float64") -> None:
        super().__init__()
        self._attention = Attention(self._signs)
        self.begin(())
        replayed = {op: self._replayed(TABLE[op]) for op in (*ORDERED, "equal", "argsort", "floor")}
        moved = {op: self._moving(op, TERMS.get(op, _single_term)) for op in ROUNDED}
        if narrow(dtype):
            # Move products by a unit of the narrow dtype: rounding would remove smaller changes.
            moved |= {op: self._moved_product(TABLE[op], dtype) for op in PRODUCTS}
        self._table = {**self._table, **moved, **replayed}
        self._table |= {op: self._attention.wrap(op, self._table[op]) for op in WATCHED}

    def begin(self, decisions: Sequence[Array] | None, seed: int = 0) -> None:
        """Prepare a new run. ``decisions`` are the recorded results of comparisons, or None;
        ``seed`` is the seed of the random signs."""
        self._random = np.random.default_rng(seed)
        self._decisions = None if decisions is None else iter(decisions)
        self._attention.begin()

    def _replayed(self, compare: Callable[..., Any]) -> Callable[..., Any]:
        def run(*operands: Any) -> Any:
            return compare(*operands) if self._decisions is None else next(self._decisions)

        return run

    def _moving(self, op: str, terms: Callable[..., int]) -> Callable[..., Array]:
        """Wrap the function of the operation ``op`` so that its results are moved up or down by
        their rounding error. ``terms`` returns how many terms each result sums."""
        function, alone = TABLE[op], op in LIBRARY_DEPENDENT

        def run(*arguments: Any, **attributes: Any) -> Array:
            y = np.asarray(function(*arguments, **attributes))
            if y.dtype.kind != "f" or self._decisions is None:
                return y
            if not any(map(np.ndim, arguments)):
                # Results of literals (exponents, bounds of a clip) are the same in all frameworks.
                if not alone or not y % 1:
                    return y
                if len(arguments) == 2:
                    # For a power of the step number, e.g. 0.999 ** t, some frameworks store the
                    # base in float32 and others in float64; 1 - beta ** t magnifies the difference.
                    base, exponent = arguments
                    return np.asarray(function(base * (1 + np.finfo(y.dtype).eps), exponent))
            moved = self._nudge(
                y, np.finfo(y.dtype).eps * sum_error(terms(*arguments, **attributes))
            )
            exact = _exact_integers(op, arguments, y)
            return moved if exact is None else np.where(exact, y, moved)

        return run

    def _moved_product(self, product: Callable[..., Any], dtype: str) -> Callable[..., Array]:
        """Wrap a matrix product so that its results are moved up or down by the largest rounding
        error of the narrow ``dtype``, e.g. bfloat16."""
        largest_error = ROUNDOFF * PRECISION[dtype]
        return lambda *a, **attributes: self._nudge(
            np.asarray(product(*a, **attributes)), largest_error
        )

    def _nudge(self, y: Array, size: float) -> Array:
        """Move each number in ``y`` up or down by the relative ``size``. Equal numbers move in the
        same direction: repeated examples have equal rounding errors, so that the errors do not
        cancel in a mean over examples."""
        unsigned = np.dtype(f"u{y.itemsize}").type
        highest = 8 * y.itemsize - 1
        top, odd = unsigned(1 << highest), unsigned(self._random.integers(1 << highest) | 1)
        result = np.array(y)
        bits = result.view(unsigned)
        bits *= odd  # the highest bit of the product depends on all bits
        bits &= top
        bits |= np.asarray(size, y.dtype).view(unsigned)
        result += 1
        result *= y
        return result

    def _signs(self, shape: tuple[int, ...]) -> Array:
        count = prod(shape)
        bits = np.frombuffer(self._random.bytes(-(-count // 8)), np.uint8)
        up = np.unpackbits(bits, count=count).reshape(shape).view(np.int8)
        return np.asarray(up * np.int8(2) - np.int8(1))


class Narrowed(Oracle):
    """The oracle with activations and sums over examples rounded to a narrow dtype such as float16,
    as in mixed-precision training.

    Since the results of activations are rounded, 1 - tanh(x) ** 2 has few digits if tanh(x) is near
    1. Sums over examples, e.g. the gradient of a bias, may overflow.
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


def small_rounding_only(values: Arrays) -> list[str]:
    """Return the names of tensors that have few entries and consist only of rounding errors. In a
    single run with random rounding, these few errors may be too small by chance, so several runs
    are needed."""
    return [name for name in rounding_only(values) if values[name].size <= FEW_ENTRIES]


def has_equal_rows(values: Arrays) -> bool:
    """Return whether any output has only equal rows. If it does, all results depend on few numbers.
    In a single run with random rounding, the errors may be too small by chance."""
    outputs = (a for n, a in values.items() if n.startswith("output.") and a.ndim)
    return any(bool((a == a[:1]).all()) for a in outputs)


def perturbed(parameters: Arrays, dtype: str, random: np.random.Generator) -> ArrayDict:
    """Return the parameters, each moved up or down by about four units in the last place of
    ``dtype``. Training from these parameters shows how far rounding errors grow in a long training.
    """
    size = PERTURBATION * PRECISION[dtype]
    return {n: a * (1 + size * random.choice((-1.0, 1.0), a.shape)) for n, a in parameters.items()}
