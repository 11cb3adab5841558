"""Recognise layers and functions in the primitives of a jaxpr, e.g. a softmax.

Each function returns the parts of a pattern, or None if a value does not have the pattern.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np

from harness.extend import Array
from harness.extend.models import elementwise_values

from .jaxprs import Value

# Primitives that compute each entry from the same entries of their arguments.
ELEMENTWISE = frozenset(
    [
        *("add", "sub", "mul", "div", "max", "min", "neg", "exp", "exp2", "log", "log1p", "expm1"),
        *("tanh", "logistic", "erf", "erfc", "sqrt", "rsqrt", "cbrt", "integer_pow", "pow"),
        *("square", "select_n", "abs", "sign", "ne", "eq", "lt", "gt", "le", "ge", "and", "or"),
        *("not", "clamp", "floor", "is_finite", "stop_gradient", "sin", "cos", "add_any"),
    ]
)


def stripped(value: Value) -> Value:
    """Return the value before broadcasts, and before reshapes that insert axes of length 1."""
    while value.op in ("broadcast", "reshape"):
        source = value.inputs[0]
        if value.op == "reshape" and _long(source.shape) != _long(value.shape):
            break
        value = source
    return value


def _long(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]


def peeled(value: Value) -> Value:
    """Return the value before a broadcast and before new leading axes, which an elementwise
    operator adds by itself."""
    while value.inputs:
        source = value.inputs[0]
        new = len(value.shape) - len(source.shape)
        leading = value.op == "reshape" and value.shape == (1,) * new + source.shape
        if value.op != "broadcast" and not leading:
            break
        value = source
    return value


def vector(value: Value, length: int) -> Value | None:
    """Return the weight of this length that a value repeats along its last axis."""
    weight = peeled(value)
    if weight.op == "reshape" and weight.shape == (*(1,) * (len(weight.shape) - 1), length):
        weight = weight.inputs[0]
    return weight if weight.op == "weight" and weight.shape == (length,) else None


def same(one: Value, other: Value) -> bool:
    """Return whether two values are computed in the same way from the same values."""
    if one is other:
        return True
    if one.op != other.op or one.shape != other.shape or len(one.inputs) != len(other.inputs):
        return False
    if not one.inputs:
        known = one.number is not None and other.number is not None
        return known and np.array_equal(one.number, other.number)  # type: ignore[arg-type]
    pairs = zip(one.inputs, other.inputs, strict=True)
    return str(one.params) == str(other.params) and all(same(a, b) for a, b in pairs)


def reduced(value: Value, op: str) -> tuple[Value, list[int]] | None:
    """Return the argument and the axes of a reduction, with or without the reduced axes."""
    value = stripped(value)
    if value.op != op:
        return None
    return value.inputs[0], [int(a) for a in value.params["axes"]]


def mean_of(value: Value) -> tuple[Value, list[int]] | None:
    """Return the argument and the axes of a mean."""
    value = stripped(value)
    if value.op not in ("div", "mul"):
        return None
    pairs = [value.inputs] if value.op == "div" else [value.inputs, value.inputs[::-1]]
    for total, count in pairs:
        reduction = reduced(total, "reduce_sum")
        if reduction is not None:
            length = math.prod(reduction[0].shape[a] for a in reduction[1])
            if count.is_number(length if value.op == "div" else 1 / length):
                return reduction
    return None


def square_of(value: Value) -> Value | None:
    """Return the value whose square this is."""
    value = stripped(value)
    power = value.params.get("y") if value.op == "integer_pow" else None
    if value.op == "square" or power == 2:
        return value.inputs[0]
    if value.op == "mul" and same(*value.inputs):
        return value.inputs[0]
    if value.op == "pow" and value.inputs[1].is_number(2):
        return value.inputs[0]
    return None


def scaled(value: Value) -> tuple[Value, float]:
    """Return a value without a constant factor, and the factor."""
    if value.op in ("mul", "div"):
        for one, other in (value.inputs, value.inputs[::-1]):
            number = other.uniform()
            if number and one.number is None and (value.op == "mul" or one is value.inputs[0]):
                return one, float(number if value.op == "mul" else 1 / number)
    return value, 1.0


def sum_with_number(value: Value) -> tuple[Value, float] | None:
    """Return the value and the number of a sum ``value + number``."""
    if value.op == "add":
        for one, other in (value.inputs, value.inputs[::-1]):
            number = other.uniform()
            if number is not None and one.number is None:
                return one, float(number)
    return None


@dataclass(frozen=True)
class Normalisation:
    """A normalisation ``gamma * (x - mean) / sqrt(variance + epsilon) + beta``.

    ``layer`` is the shipped layer. ``weights`` has the weight of each of its parameters.
    """

    layer: str
    x: Value
    epsilon: float
    weights: dict[str, Value]


def normalisation(value: Value) -> Normalisation | None:
    """Return the layer norm, batch norm or RMS norm that computes a value."""
    if not value.shape:
        return None
    length, product, beta = value.shape[-1], value, None
    if value.op == "add":
        for one, other in (value.inputs, value.inputs[::-1]):
            if (beta := vector(other, length)) is not None:
                product = one
                break
        else:
            return None
    numerators: list[Value] = []
    roots: list[Value] = []
    _factors(product, numerators, roots)
    gammas = [w for f in numerators if (w := vector(f, length)) is not None]
    rest = [f for f in numerators if vector(f, length) is None]
    inside = sum_with_number(roots[0]) if len(roots) == 1 else None
    if len(rest) != 1 or len(gammas) != 1 or inside is None or rest[0].shape != value.shape:
        return None
    variance, epsilon = inside
    weights = {"gamma": gammas[0]} | ({} if beta is None else {"beta": beta})
    if beta is None:
        mean_square = mean_of(variance)
        x = None if mean_square is None else square_of(mean_square[0])
        last = mean_square is not None and mean_square[1] == [len(value.shape) - 1]
        if x is None or not last or not same(x, rest[0]):
            return None
        return Normalisation("rms_norm", rest[0], epsilon, weights)
    if rest[0].op != "sub":
        return None
    x, center = rest[0].inputs
    mean, moving = vector(center, length), vector(variance, length)
    if mean is not None and moving is not None:
        statistics = {"moving_mean": mean, "moving_variance": moving}
        return Normalisation("batch_norm", x, epsilon, {**weights, **statistics})
    if _is_mean(center, x) and _is_variance(variance, x):
        return Normalisation("layer_norm", x, epsilon, weights)
    return None


def _factors(value: Value, numerators: list[Value], roots: list[Value]) -> None:
    """Collect the factors of a product, and the values whose inverse square roots are factors."""
    if value.op == "mul":
        for one in value.inputs:
            _factors(one, numerators, roots)
    elif value.op == "rsqrt":
        roots.append(value.inputs[0])
    elif value.op == "div" and peeled(value.inputs[1]).op == "sqrt":
        roots.append(peeled(value.inputs[1]).inputs[0])
        _factors(value.inputs[0], numerators, roots)
    elif value.op == "broadcast":
        _factors(value.inputs[0], numerators, roots)
    else:
        numerators.append(value)


def _is_mean(value: Value, x: Value) -> bool:
    """Return whether a value is the mean of x along the last axis, which has length 1 in it."""
    before = value.inputs[0] if value.op == "broadcast" else value
    mean = mean_of(before)
    rank = len(x.shape)
    return (
        mean is not None
        and before.shape == (*x.shape[:-1], 1)
        and mean[1] == [rank - 1]
        and same(mean[0], x)
    )


def _is_variance(value: Value, x: Value) -> bool:
    """Return whether a value is the biased variance of x along the last axis: the mean of squared
    differences, or E[x^2] - E[x]^2, which may be limited to positive numbers."""
    rank = len(x.shape)
    if value.shape != (*x.shape[:-1], 1):
        return False
    inner = stripped(value)
    mean_of_squares = mean_of(inner)
    if mean_of_squares is not None and mean_of_squares[1] == [rank - 1]:
        center = square_of(mean_of_squares[0])
        if center is None or center.op != "sub" or not same(center.inputs[0], x):
            return False
        return _is_mean(center.inputs[1], x)
    if inner.op == "max":
        parts = [i for i in inner.inputs if i.uniform() != 0]
        inner = stripped(parts[0]) if len(parts) == 1 else inner
    if inner.op != "sub":
        return False
    squares, mean = mean_of(inner.inputs[0]), square_of(inner.inputs[1])
    if squares is None or mean is None or squares[1] != [rank - 1]:
        return False
    own, of = square_of(squares[0]), mean_of(mean)
    return own is not None and same(own, x) and of is not None and same(of[0], x)


def softmax(value: Value) -> tuple[Value, int] | None:
    """Return the argument and the axis of a softmax."""
    if value.op != "div":
        return None
    exponential = value.inputs[0]
    total = reduced(value.inputs[1], "reduce_sum")
    if exponential.op != "exp" or total is None or len(total[1]) != 1:
        return None
    axis = total[1][0]
    if not same(total[0], exponential) or not _keeps(value.inputs[1], value.shape, axis):
        return None
    return shifted(exponential.inputs[0], axis), axis


def log_softmax(value: Value) -> tuple[Value, int] | None:
    """Return the argument and the axis of a log-softmax."""
    if value.op != "sub":
        return None
    x, logarithm = value.inputs[0], peeled(value.inputs[1])
    total = reduced(logarithm.inputs[0], "reduce_sum") if logarithm.op == "log" else None
    if total is None or len(total[1]) != 1 or total[0].op != "exp":
        return None
    axis = total[1][0]
    if not same(total[0].inputs[0], x) or not _keeps(value.inputs[1], value.shape, axis):
        return None
    return shifted(x, axis), axis


def logsumexp(value: Value) -> tuple[Value, int] | None:
    """Return the argument and the axis of a logsumexp that subtracts the maximum first."""
    if value.op != "add":
        return None
    for one, largest in (value.inputs, value.inputs[::-1]):
        logarithm = stripped(one)
        inside = stripped(logarithm.inputs[0]) if logarithm.op == "log" else logarithm
        inside = stripped(inside.inputs[0]) if inside.op == "abs" else inside
        total = reduced(inside, "reduce_sum")
        if total is None or total[0].op != "exp" or len(total[1]) != 1:
            continue
        argument, axis = total[0].inputs[0], total[1][0]
        x = shifted(argument, axis)
        if x is not argument and same(_maximum(largest), _maximum(argument.inputs[1])):
            return x, axis
    return None


def shifted(value: Value, axis: int) -> Value:
    """Return x if a value is ``x - max(x)`` along an axis, else the value."""
    if value.op == "sub":
        largest = reduced(_maximum(value.inputs[1]), "reduce_max")
        if largest is not None and largest[1] == [axis] and same(largest[0], value.inputs[0]):
            return value.inputs[0]
    return value


def _maximum(value: Value) -> Value:
    """Return the maximum inside of ``stop_gradient`` and of checks for infinity."""
    while True:
        value = stripped(value)
        if value.op == "stop_gradient":
            value = value.inputs[0]
        elif value.op == "max" and any(i.uniform() == -math.inf for i in value.inputs):
            value = next(i for i in value.inputs if i.uniform() != -math.inf)
        elif value.op == "select_n" and value.inputs[0].op == "is_finite":
            value = value.inputs[2]
        else:
            return value


def _keeps(value: Value, shape: Sequence[int], axis: int) -> bool:
    """Return whether a value has this shape with length 1 at an axis."""
    before = value.inputs[0] if value.op == "broadcast" else value
    return list(before.shape) == [1 if a == axis else n for a, n in enumerate(shape)]


# The points at which a function is compared with the shipped functions.
GRID = np.concatenate([np.linspace(-8, 8, 257), [-30.0, -15.5, 15.5, 30.0]]) + 1e-3


def known_function(value: Value) -> tuple[str, Value] | None:
    """Return the name and the argument of a function of one value, recognised by its numbers."""
    if value.op not in ELEMENTWISE or value.kind != "float" or value.number is not None:
        return None
    frontier = {id(value): value}
    for _ in range(40):
        inner = [v for v in frontier.values() if v.op in ELEMENTWISE]
        if not inner:
            return None
        # The last value in the order of execution: no other value of the frontier depends on it.
        last = max(inner, key=lambda v: v.order)
        del frontier[id(last)]
        frontier |= {id(i): i for i in last.inputs if i.uniform() is None}
        if len(frontier) == 1:
            (x,) = frontier.values()
            if x.shape == value.shape and x.kind == "float":
                numbers = _on_grid(value, x)
                if (name := _named(numbers)) is not None:
                    return name, x
    return None


def _named(numbers: Array | None) -> str | None:
    """Return the first function with these numbers on the grid, or None."""
    if numbers is None:
        return None
    functions = _functions().items()
    return next((n for n, f in functions if np.allclose(numbers, f, rtol=1e-6, atol=1e-7)), None)


@cache
def _functions() -> dict[str, Array]:
    """Return the values of each shipped function on the grid."""
    return elementwise_values(GRID)


def _on_grid(value: Value, x: Value) -> Array | None:
    """Return the numbers of an elementwise function of x on the grid."""
    known: dict[int, Any] = {id(x): jax.numpy.asarray(GRID)}

    def numbers(v: Value) -> Any:
        if id(v) not in known:
            if (number := v.uniform()) is not None:
                dtype = None if v.kind != "float" else GRID.dtype
                known[id(v)] = jax.numpy.full(GRID.shape, number, dtype)
            else:
                known[id(v)] = v.primitive.bind(*map(numbers, v.inputs), **v.params)
        return known[id(v)]

    with jax.debug_nans(False):
        result = np.asarray(numbers(value))
    return result if np.isfinite(result).all() else None
