"""What Keras does where nothing is said, in losses, optimizers and numbers."""

from __future__ import annotations

import inspect
import math
from typing import Any

import keras
import numpy as np
from keras import losses, ops, optimizers

from harness.extend import Measured

from .defaults import PROBES, floats

__all__ = ["PROBES"]

RATE = 2.0**-10  # exact in every dtype


def _array(tensor: Any) -> Any:
    return np.asarray(ops.convert_to_numpy(tensor))


def _moved(optimizer: Any, gradient: float, start: float = 0.0) -> float:
    """How far one step moves a parameter, in learning rates."""
    p = keras.Variable(floats([start]))
    optimizer.apply([ops.convert_to_tensor(floats([gradient]))], [p])
    return float((start - _array(p.value)[0]) / RATE)


def _default(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default


def _loss(found: Any) -> float:
    return float(np.ravel(_array(found))[0])


@PROBES
def cross_entropy_input() -> Measured:
    found = losses.CategoricalCrossentropy()(floats([[1, 0]]), floats([[1, 0]]))
    return "logits" if _loss(found) > 0.1 else "probabilities"


@PROBES
def cross_entropy_axis() -> Measured:
    zeros = np.zeros((2, 3, 5), "float32")
    return -1 if losses.categorical_crossentropy(zeros, zeros).shape == (2, 3) else 1


@PROBES
def loss_reduction() -> Measured:
    half = np.full((4, 2), 0.5, "float32")
    found = losses.CategoricalCrossentropy()(half, half)
    return "mean" if abs(_loss(found) - math.log(2)) < 1e-6 else "none"


@PROBES
def cross_entropy_gap() -> Measured:
    probabilities = np.exp(floats([[-30, 0]]))
    return _loss(losses.categorical_crossentropy(floats([[1, 0]]), probabilities))


@PROBES
def cross_entropy_sum() -> Measured:
    return _loss(losses.categorical_crossentropy(floats([[1, 0, 0]]), np.full((1, 3), 0.4)))


@PROBES
def kl_divergence() -> Measured:
    return _loss(losses.kl_divergence(floats([[0.5, 0.5]]), floats([[0.25, 0.75]])))


@PROBES
def squared_error() -> Measured:
    return _loss(losses.mean_squared_error(floats([[1]]), floats([[0]])))


@PROBES
def cosine_similarity() -> Measured:
    return _loss(losses.cosine_similarity(floats([[1, 1]]), floats([[1, 1]])))


@PROBES
def adam_epsilon() -> Measured:
    return float(optimizers.Adam().epsilon)


@PROBES
def adam_epsilon_place() -> Measured:
    return _moved(optimizers.Adam(RATE, epsilon=1e-8), 1e-8)


@PROBES
def adam_weight_decay() -> Measured:
    return _moved(optimizers.Adam(RATE, weight_decay=0.125), 0.0, 1.0)


@PROBES
def adamw_decay() -> Measured:
    return float(optimizers.AdamW().weight_decay)


@PROBES
def rmsprop_decay() -> Measured:
    return float(optimizers.RMSprop().rho)


@PROBES
def rmsprop_epsilon_place() -> Measured:
    return _moved(optimizers.RMSprop(RATE, rho=0.0, epsilon=1.0), 1.0)


@PROBES
def sgd_rate() -> Measured:
    return float(_default(optimizers.SGD, "learning_rate"))


@PROBES
def adagrad_start() -> Measured:
    return float(optimizers.Adagrad().initial_accumulator_value)


@PROBES
def momentum_and_rate() -> Measured:
    p, g = keras.Variable(np.zeros(1, "float32")), ops.ones(1)
    optimizer = optimizers.SGD(1.0, momentum=0.5)
    optimizer.apply([g], [p])
    before = float(_array(p.value)[0])
    optimizer.learning_rate = 0.125
    optimizer.apply([g], [p])
    return before - float(_array(p.value)[0])


@PROBES
def rate_attribute() -> Measured:
    optimizer = optimizers.SGD(1.0)
    optimizer.lr = 0.125
    return "no effect" if float(_array(optimizer.learning_rate)) == 1.0 else "sets the rate"


@PROBES
def repeated_rows_adam() -> Measured:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Embedding(2, 1)])
    model.set_weights([np.zeros((2, 1), "float32")])
    model.compile(optimizers.Adam(RATE), lambda y, x: ops.sum(x), jit_compile=False)
    model.train_on_batch(np.array([[0, 0, 1]]), np.zeros((1, 3, 1)))
    return -float(model.get_weights()[0][0, 0]) / RATE


@PROBES
def gradient_clipping() -> Measured:
    parameters = [keras.Variable(np.zeros(1, "float32")) for _ in range(2)]
    optimizers.SGD(1.0, clipnorm=1.0).apply([ops.ones(1), ops.ones(1)], parameters)
    return -float(_array(parameters[0].value)[0])


@PROBES
def rate_dtype() -> Measured:
    p = keras.Variable(np.zeros(1), dtype="float64")
    optimizers.SGD(0.1).apply([ops.ones(1, "float64")], [p])
    return "exact" if abs(float(_array(p.value)[0]) + 0.1) < 1e-15 else "float32"


@PROBES
def float64_input() -> Measured:
    found = keras.layers.Dense(1)(np.zeros((1, 1), "float64"))
    return str(keras.backend.standardize_dtype(found.dtype))


@PROBES
def default_float() -> Measured:
    return str(keras.backend.standardize_dtype(ops.zeros(1).dtype))


@PROBES
def default_integer() -> Measured:
    return str(keras.backend.standardize_dtype(ops.arange(1).dtype))


@PROBES
def float64_array() -> Measured:
    found = ops.convert_to_tensor(np.zeros(1))
    return str(keras.backend.standardize_dtype(found.dtype))


@PROBES
def standard_deviation() -> Measured:
    return float(_array(ops.std(floats([0, 2]))))


@PROBES
def median_of_two() -> Measured:
    return float(_array(ops.median(floats([1, 2]))))


@PROBES
def argmax_nan() -> Measured:
    return int(_array(ops.argmax(floats([1, math.nan, 2]))))


@PROBES
def array_sharing() -> Measured:
    source = np.zeros(1, "float32")
    made = ops.convert_to_tensor(source)
    source[0] = 1
    return "shares" if float(_array(made)[0]) else "copies"


@PROBES
def batch_of_data() -> Measured:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((64, 1)), np.zeros((64, 1)), verbose=0)
    return 64 // int(_array(model.optimizer.iterations))


@PROBES
def order_of_data() -> Measured:
    return "shuffled" if _default(keras.Model.fit, "shuffle") else "as given"
