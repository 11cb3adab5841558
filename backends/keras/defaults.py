"""Measurements of Keras' defaults, e.g. of an optimizer's epsilon: one function for each entry of
``specs/defaults``."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, losses, ops, optimizers

from harness.extend import Measured, Probes

PROBES = Probes()
BIG = 50.0  # large enough to saturate a gate
RATE = 2.0**-10  # exact in every dtype


def build_with_zeros(layer: Any, *shape: int | None) -> Any:
    """Build a layer for an input shape, set all parameters to zero, and return the layer."""
    layer.build(shape)
    layer.set_weights([np.zeros(w.shape, "float32") for w in layer.weights])
    return layer


def floats(numbers: Any) -> Any:
    """Return numbers as a float32 array."""
    return np.array(numbers, "float32")


def _array(tensor: Any) -> Any:
    return np.asarray(ops.convert_to_numpy(tensor))


def _weights(layer: Any, *shape: int) -> Any:
    """Build a layer for an input shape, and return its initial weights as a list of arrays."""
    layer.build(shape)
    return layer.get_weights()


ZERO, ONE = np.zeros((1, 1, 1), "float32"), np.ones((1, 1), "float32")


def _layer_with_gate_bias(layer: Any, position: Any, bias: float) -> Any:
    """Return a recurrent layer with one unit, whose parameters are all 0, except one: the entry
    ``position`` of the bias is ``bias``. This entry belongs to one gate, and the layer's results
    show which gate."""
    arrays = build_with_zeros(layer, 1, 1, 1).get_weights()
    arrays[2][position] = bias
    layer.set_weights(arrays)
    return layer


def _reset_gru() -> Any:
    layer = build_with_zeros(layers.GRU(2), 1, 1, 1)
    kernel, recurrent, bias = layer.get_weights()
    recurrent[:, 4:] = [[0.0, 1.0], [1.0, 0.0]]
    bias[0, 3] = -BIG  # the second unit's state is reset
    layer.set_weights([kernel, recurrent, bias])
    return _array(layer(ZERO, initial_state=floats([[1, 0]])))[0, 1]


def _gru_state(block: int) -> Any:
    return _array(
        _layer_with_gate_bias(layers.GRU(1), (0, block), BIG)(ZERO, initial_state=3 * ONE)
    )[0, 0]


def _lstm_states(block: int) -> Any:
    layer = _layer_with_gate_bias(layers.LSTM(1, return_state=True), block, BIG)
    return [_array(s)[0, 0] for s in layer(ZERO, initial_state=[0 * ONE, 3 * ONE])[1:]]


def _masked_step() -> Any:
    x, mask = np.ones((1, 2, 1), "float32"), np.array([[True, False]])
    return _array(layers.LSTM(1, return_sequences=True)(x, mask=mask))[0, 1, 0]


def _batch_norm_after_batch(training: bool | None = True, **options: Any) -> Any:
    """Return a batch norm layer that has normalised one batch with mean 1. Its moving statistics
    show the layer's defaults, e.g. the momentum."""
    layer = layers.BatchNormalization(**options)
    layer(floats([[0], [2]]), training=training)
    return layer


@PROBES
def stateful_predict() -> Measured:
    model = keras.Sequential([keras.Input(batch_shape=(1, 1, 1)), layers.GRU(1, stateful=True)])
    x = np.ones((1, 1, 1), "float32")
    first, second = (model.predict(x, verbose=0) for _ in range(2))
    return "moves on" if not np.array_equal(first, second) else "rests"


@PROBES
def batch_norm_axis() -> Measured:
    layer = layers.BatchNormalization()
    layer.build((2, 3, 4))
    return -1 if layer.gamma.shape == (4,) else 1


def _look_up(index: int) -> Measured:
    layer = build_with_zeros(layers.Embedding(3, 1), 1)
    layer.set_weights([np.arange(1, 4, dtype="float32")[:, None]])
    try:
        entry = float(_array(layer(np.array([index])))[0, 0])
    except Exception:  # each engine raises a different error
        return "error"
    return "NaN" if entry != entry else f"row {int(entry) - 1}"


PROBES.looked_up(_look_up)


# Measurements of losses, optimizers and numeric functions follow.


def _step_size(optimizer: Any, gradient: float, start: float = 0.0) -> float:
    """Return how far one optimizer step moves a parameter from ``start``, divided by the learning
    rate. The gradient is ``gradient``."""
    p = keras.Variable(floats([start]))
    optimizer.apply([ops.convert_to_tensor(floats([gradient]))], [p])
    return float((start - _array(p.value)[0]) / RATE)


def _default_argument(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default


def _loss(result: Any) -> float:
    return float(np.ravel(_array(result))[0])


@PROBES
def cross_entropy_axis() -> Measured:
    zeros = np.zeros((2, 3, 5), "float32")
    return -1 if losses.categorical_crossentropy(zeros, zeros).shape == (2, 3) else 1


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
def batch_of_data() -> Measured:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((64, 1)), np.zeros((64, 1)), verbose=0)
    return 64 // int(_array(model.optimizer.iterations))


def _rate_error() -> Any:
    p = keras.Variable(np.zeros(1), dtype="float64")
    optimizers.SGD(0.1).apply([ops.ones(1, "float64")], [p])
    return -_array(p.value)


def _dtype(tensor: Any) -> str:
    return str(keras.backend.standardize_dtype(tensor.dtype))


PROBES.observe(
    {
        "gru-reset": _reset_gru,
        "gru-gates": _gru_state,
        "lstm-gates": _lstm_states,
        "lstm-forget-bias": lambda: _weights(layers.LSTM(4), 1, 1, 2)[2][4:8],
        "recurrent-layout": lambda: layers.GRU(4)(floats(np.zeros((5, 2, 3)))).shape[0],
        "recurrent-output": lambda: len(layers.GRU(4)(floats(np.zeros((5, 2, 3)))).shape),
        "recurrent-kernel-initial": lambda: _weights(layers.GRU(8), 1, 1, 4)[1],
        "masked-steps": _masked_step,
        "softmax-axis": lambda: _array(keras.activations.softmax(ops.zeros((2, 3, 5)))),
        "gelu-form": lambda: _array(keras.activations.gelu(floats([1]))),
        "batch-norm-variance": lambda: _array(
            _batch_norm_after_batch(momentum=0.0).moving_variance
        ),
        "batch-norm-phase": lambda: _array(_batch_norm_after_batch(training=None).moving_mean),
        "batch-norm-offset": lambda x: _array(
            layers.BatchNormalization(epsilon=1e-5)(x, training=True)
        ),
        "dense-bias-initial": lambda: _weights(layers.Dense(8), 1, 4)[1],
        "dense-kernel-layout": lambda: _weights(layers.Dense(3), 1, 2)[0].shape,
        "he-normal-tail": lambda: _array(keras.initializers.HeNormal()((300, 300))),
        "padding-index": lambda: _weights(layers.Embedding(3, 2, mask_zero=True), 1)[0][0],
        "cross-entropy-input": lambda: _array(
            losses.CategoricalCrossentropy()(floats([[1, 0]]), floats([[1, 0]]))
        ),
        "loss-reduction": lambda: _array(
            losses.CategoricalCrossentropy()(np.full((4, 2), 0.5), np.full((4, 2), 0.5))
        ),
        "rate-dtype": _rate_error,
        "array-sharing": lambda array: partial(_array, ops.convert_to_tensor(array)),
        "order-of-data": lambda: _default_argument(keras.Model.fit, "shuffle"),
    }
)
PROBES.update(
    {
        "gru-biases": lambda: int(build_with_zeros(layers.GRU(1), 1, 1, 1).count_params()),
        "lstm-biases": lambda: int(build_with_zeros(layers.LSTM(1), 1, 1, 1).count_params()),
        "rnn-biases": lambda: int(build_with_zeros(layers.SimpleRNN(1), 1, 1, 1).count_params()),
        "gate-activation": lambda: float(
            _array(_layer_with_gate_bias(layers.GRU(1), (0, 0), 1.0)(ZERO, initial_state=ONE))[0, 0]
        ),
        "input-kernel-initial": lambda: float(
            np.abs(_weights(layers.GRU(100), 1, 1, 100)[0]).max()
        ),
        "dense-kernel-initial": lambda: float(np.abs(_weights(layers.Dense(50), 1, 100)[0]).max()),
        "embedding-initial": lambda: float(_weights(layers.Embedding(200, 200), 1)[0].std()),
        "hard-sigmoid-slope": lambda: float(
            np.diff(_array(keras.activations.hard_sigmoid(floats([0, 1]))))[0]
        ),
        "leaky-relu-slope": lambda: -float(_array(layers.LeakyReLU()(floats([-1])))[0]),
        "batch-norm-momentum": lambda: float(_array(_batch_norm_after_batch().moving_mean)[0]),
        "batch-norm-epsilon": lambda: float(layers.BatchNormalization().epsilon),
        "layer-norm-epsilon": lambda: float(layers.LayerNormalization().epsilon),
        "cross-entropy-gap": lambda: _loss(
            losses.categorical_crossentropy(floats([[1, 0]]), np.exp(floats([[-30, 0]])))
        ),
        "cross-entropy-sum": lambda: _loss(
            losses.categorical_crossentropy(floats([[1, 0, 0]]), np.full((1, 3), 0.4))
        ),
        "kl-divergence": lambda: _loss(
            losses.kl_divergence(floats([[0.5, 0.5]]), floats([[0.25, 0.75]]))
        ),
        "cosine-similarity": lambda: _loss(
            losses.cosine_similarity(floats([[1, 1]]), floats([[1, 1]]))
        ),
        "squared-error": lambda: _loss(losses.mean_squared_error(floats([[1]]), floats([[0]]))),
        "adam-epsilon": lambda: float(optimizers.Adam().epsilon),
        "adam-epsilon-place": lambda: _step_size(optimizers.Adam(RATE, epsilon=1e-8), 1e-8),
        "adam-weight-decay": lambda: _step_size(
            optimizers.Adam(RATE, weight_decay=0.125), 0.0, 1.0
        ),
        "adamw-decay": lambda: float(optimizers.AdamW().weight_decay),
        "rmsprop-decay": lambda: float(optimizers.RMSprop().rho),
        "rmsprop-epsilon-place": lambda: _step_size(
            optimizers.RMSprop(RATE, rho=0.0, epsilon=1.0), 1.0
        ),
        "sgd-rate": lambda: float(_default_argument(optimizers.SGD, "learning_rate")),
        "adagrad-start": lambda: float(optimizers.Adagrad().initial_accumulator_value),
        "default-float": lambda: _dtype(ops.zeros(1)),
        "default-integer": lambda: _dtype(ops.arange(1)),
        "float64-input": lambda: _dtype(layers.Dense(1)(np.zeros((1, 1), "float64"))),
        "float64-array": lambda: _dtype(ops.convert_to_tensor(np.zeros(1))),
        "standard-deviation": lambda: float(_array(ops.std(floats([0, 2])))),
        "median-of-two": lambda: float(_array(ops.median(floats([1, 2])))),
        "argmax-nan": lambda: int(_array(ops.argmax(floats([1, math.nan, 2])))),
    }
)
