"""What rounding does where attention is fused: in two places more than in its equations.

The gradient of fused attention has its softmax as ``exp(x - log(sum(exp(x))))``, whose exponent is
off by a last place of what is subtracted, so that no row sums to 1; and for the sum over each row
of ``(dy @ values) * weights`` it has ``dy . (weights @ values)``, which is rounded at the size of
its own terms (Dao et al. 2022, algorithm 4). Where a row is all but one-hot, the equations have
neither error: a maximum is subtracted from itself, and so is an entry of the gradient.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Array

# What softmax and its gradient are made of.
WATCHED = ("max", "subtract", "exp", "sum", "divide", "matmul", "multiply", "negative")
# What the next operation of a softmax is, after each.
NEXT = {"max": "subtract", "subtract": "exp", "exp": "sum", "sum": "divide"}
# What is further from 0 than this is a mask, and no shift.
FURTHEST = 1e6
# So many products are followed at once: those of a layer's gradient are made side by side.
PRODUCTS = 4
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
        self._products: deque[_Product] = deque(maxlen=PRODUCTS)
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
