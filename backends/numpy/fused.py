"""numpy's fused operations, e.g. softmax in one function. They are used where no executor runs,
e.g. in checks of single passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.extend import Array


def _softmax(x: Array) -> Array:
    exponentials = np.exp(x - np.max(x, -1, keepdims=True))
    return exponentials / np.sum(exponentials, -1, keepdims=True)


def _log_sum_exp(x: Array) -> Array:
    largest = np.max(x, -1, keepdims=True)
    return largest + np.log(np.sum(np.exp(x - largest), -1, keepdims=True))


def _scatter_add(x: Array, indices: Array, y: Array) -> Array:
    sums = np.take_along_axis(x, indices, -1) + y
    result = x.copy()
    np.put_along_axis(result, indices, sums, -1)
    return result


FUSED: Mapping[str, Callable[..., Any]] = {
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0.0),
    "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "sigmoid_gradient": lambda g, y: g * y * (1.0 - y),
    "tanh_gradient": lambda g, y: g * (1.0 - y * y),
    "relu_gradient": lambda g, y: np.where(y <= 0.0, np.zeros_like(y), g),
    "clip_gradient": lambda g, x, low, high: np.where(
        (x <= low) | (x >= high), np.zeros_like(x), g
    ),
    "scatter_add": _scatter_add,
    "softmax": _softmax,
    "log_sum_exp": _log_sum_exp,
}
