"""Activations and gates of the numpy baselines, with their derivatives by their results.

Functions write to ``out``, which may be ``x``. Derivatives write ``g`` times the slope where the
result was ``y``; ``spare`` is a float buffer of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Array = np.ndarray
Function = Callable[[Array, Array], Array]


def hard_sigmoid(x: Array, out: Array) -> Array:
    """The gate of Keras 2, of slope 1/5."""
    np.multiply(x, 0.2, out=out)
    out += 0.5
    return np.clip(out, 0, 1, out=out)


def sigmoid(x: Array, out: Array) -> Array:
    """The logistic function in a form that cannot overflow."""
    np.multiply(x, 0.5, out=out)
    np.tanh(out, out=out)
    out *= 0.5
    out += 0.5
    return out


def relu(x: Array, out: Array) -> Array:
    """x where it is above 0."""
    return np.maximum(x, 0, out=out)


def tanh(x: Array, out: Array) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(x, out=out)


def hard_sigmoid_back(g: Array, y: Array, spare: Array, out: Array) -> Array:
    """The slope is 1/5 strictly inside, 0 at the corners and outside."""
    np.subtract(y, 0.5, out=spare)
    np.abs(spare, out=spare)
    np.less(spare, 0.5, out=spare, casting="unsafe")
    spare *= 0.2
    return np.multiply(g, spare, out=out)


def sigmoid_back(g: Array, y: Array, spare: Array, out: Array) -> Array:
    """The slope is y (1 - y)."""
    np.subtract(1, y, out=spare)
    spare *= y
    return np.multiply(g, spare, out=out)


def relu_back(g: Array, y: Array, spare: Array, out: Array) -> Array:
    """The slope is 1 above 0, else 0."""
    np.greater(y, 0, out=spare, casting="unsafe")
    return np.multiply(g, spare, out=out)


def tanh_back(g: Array, y: Array, spare: Array, out: Array) -> Array:
    """The slope is 1 - y^2."""
    np.multiply(y, y, out=spare)
    np.subtract(1, spare, out=spare)
    return np.multiply(g, spare, out=out)


BACK: Mapping[Function, Callable[[Array, Array, Array, Array], Array]] = {
    hard_sigmoid: hard_sigmoid_back,
    sigmoid: sigmoid_back,
    relu: relu_back,
    tanh: tanh_back,
}
