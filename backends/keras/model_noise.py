"""Dropout of a user's Keras model with given random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from harness.extend.models import GivenNoise

# Functions of ``keras.random`` whose random numbers the spec's noise cannot replace.
OTHERS = (
    *("normal", "categorical", "uniform", "randint", "truncated_normal", "shuffle"),
    *("gamma", "binomial", "beta"),
)


@contextmanager
def with_noise(keras: Any, given: GivenNoise) -> Iterator[None]:
    """Replace the random numbers of dropout in the block by the spec's.

    Raises:
        NoiseMisfit: the calls do not fit the arrays, or the model draws other random numbers.
    """
    random, ops = keras.src.backend.random, keras.ops
    own_dropout = random.dropout

    def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
        if rate in (0, 1):  # no random numbers
            return own_dropout(inputs, rate, noise_shape, seed)
        shape = inputs.shape if noise_shape is None else noise_shape
        lengths = [n or length for n, length in zip(shape, inputs.shape, strict=True)]
        mask = ops.convert_to_tensor(given.take(lengths), inputs.dtype)
        return inputs * mask / (1 - rate)

    def refuse(name: str) -> Any:
        return lambda *_, **__: given.refuse(
            f"the model draws random numbers of keras.random.{name}, which the spec does not give"
        )

    functions = {name: refuse(name) for name in OTHERS} | {"dropout": dropout}
    with given.checked(), patch.multiple(random, **functions):
        yield
