"""Measurements of Keras' defaults: one function for each entry of ``specs/defaults``."""

from __future__ import annotations

import inspect
import math
from typing import Any

import keras
import numpy as np
from keras import layers, losses, ops, optimizers

from harness.extend import Measured, Probes

PROBES = Probes()
BIG = 50.0  # large enough to saturate a gate
RATE = 2.0**-10  # exact in every dtype


def built(layer: Any, *shape: int | None) -> Any:
    """Build a layer for an input shape, and set all parameters to zero."""
    layer.build(shape)
    layer.set_weights([np.zeros(w.shape, "float32") for w in layer.weights])
    return layer


def floats(numbers: Any) -> Any:
    """Return a float32 tensor."""
    return np.array(numbers, "float32")


def _array(tensor: Any) -> Any:
    return np.asarray(ops.convert_to_numpy(tensor))


@PROBES
def gru_reset() -> Measured:
    layer = built(layers.GRU(2), 1, 1, 1)
    kernel, recurrent, bias = layer.get_weights()
    recurrent[:, 4:] = [[0.0, 1.0], [1.0, 0.0]]
    bias[0, 3] = -BIG  # the second unit's state is reset
    layer.set_weights([kernel, recurrent, bias])
    h = _array(layer(np.zeros((1, 1, 1), "float32"), initial_state=floats([[1, 0]])))
    return "before" if h[0, 1] > 0.1 else "after"


@PROBES
def gru_gates() -> Measured:
    found = []
    for block in range(3):
        layer = built(layers.GRU(1), 1, 1, 1)
        kernel, recurrent, bias = layer.get_weights()
        bias[0, block] = BIG
        layer.set_weights([kernel, recurrent, bias])
        h = _array(layer(np.zeros((1, 1, 1), "float32"), initial_state=floats([[3]])))
        found.append({3.0: "z", 1.5: "r", 2.0: "n"}[round(float(h[0, 0]), 3)])
    return ", ".join(found)


@PROBES
def lstm_gates() -> Measured:
    found = []
    for block in range(4):
        layer = built(layers.LSTM(1, return_state=True), 1, 1, 1)
        kernel, recurrent, bias = layer.get_weights()
        bias[block] = BIG
        layer.set_weights([kernel, recurrent, bias])
        state = [np.zeros((1, 1), "float32"), np.full((1, 1), 3, "float32")]
        _, h, c = map(_array, layer(np.zeros((1, 1, 1), "float32"), initial_state=state))
        gate = {3.0: "f", 2.0: "g"}.get(round(float(c[0, 0]), 3))
        found.append(gate or ("o" if h[0, 0] > 0.6 else "i"))
    return ", ".join(found)


@PROBES
def lstm_forget_bias() -> Measured:
    layer = layers.LSTM(4)
    layer.build((1, 1, 2))
    bias = layer.get_weights()[2][4:8]
    return "drawn" if bias.std() > 0 else float(bias[0])


@PROBES
def gate_activation() -> Measured:
    layer = built(layers.GRU(1), 1, 1, 1)
    kernel, recurrent, bias = layer.get_weights()
    bias[0, 0] = 1.0  # the update gate keeps this share of the state
    layer.set_weights([kernel, recurrent, bias])
    h = layer(np.zeros((1, 1, 1), "float32"), initial_state=np.ones((1, 1), "float32"))
    return float(_array(h)[0, 0])


@PROBES
def recurrent_layout() -> Measured:
    found = layers.GRU(4)(np.zeros((5, 2, 3), "float32"))
    return "batch first" if found.shape[0] == 5 else "time first"


@PROBES
def recurrent_output() -> Measured:
    found = layers.GRU(4)(np.zeros((5, 2, 3), "float32"))
    return "every step" if len(found.shape) == 3 else "last step"


@PROBES
def masked_steps() -> Measured:
    x, mask = np.ones((1, 2, 1), "float32"), np.array([[True, False]])
    out = _array(layers.LSTM(1, return_sequences=True)(x, mask=mask))
    return "zeros" if out[0, 1, 0] == 0 else "the output before"


@PROBES
def stateful_predict() -> Measured:
    model = keras.Sequential([keras.Input(batch_shape=(1, 1, 1)), layers.GRU(1, stateful=True)])
    x = np.ones((1, 1, 1), "float32")
    first, second = (model.predict(x, verbose=0) for _ in range(2))
    return "moves on" if not np.array_equal(first, second) else "rests"


@PROBES
def recurrent_kernel_initial() -> Measured:
    layer = layers.GRU(8)
    layer.build((1, 1, 4))
    whole = layer.get_weights()[1]
    return "orthogonal" if np.allclose(whole @ whole.T, np.eye(8), atol=1e-4) else "uniform"


@PROBES
def input_kernel_initial() -> Measured:
    layer = layers.GRU(100)
    layer.build((1, 1, 100))
    return float(np.abs(layer.get_weights()[0]).max())


@PROBES
def hard_sigmoid_slope() -> Measured:
    found = _array(keras.activations.hard_sigmoid(floats([0, 1])))
    return float(found[1] - found[0])


@PROBES
def softmax_axis() -> Measured:
    found = _array(keras.activations.softmax(ops.zeros((2, 3, 5))))
    return {0.5: 0, 0.333: 1, 0.2: -1}[round(float(found[0, 0, 0]), 3)]


@PROBES
def gelu_form() -> Measured:
    found = float(_array(keras.activations.gelu(floats([1])))[0])
    return "exact" if abs(found - 0.841345) < 1e-5 else "tanh"


@PROBES
def batch_norm_momentum() -> Measured:
    layer = layers.BatchNormalization()
    layer(floats([[0], [2]]), training=True)
    return float(_array(layer.moving_mean)[0])  # after a batch with mean 1


@PROBES
def batch_norm_variance() -> Measured:
    layer = layers.BatchNormalization(momentum=0.0)
    layer(floats([[0], [2]]), training=True)
    return "unbiased" if _array(layer.moving_variance)[0] > 1.5 else "biased"


@PROBES
def batch_norm_axis() -> Measured:
    layer = layers.BatchNormalization()
    layer.build((2, 3, 4))
    return -1 if layer.gamma.shape == (4,) else 1


@PROBES
def batch_norm_phase() -> Measured:
    layer = layers.BatchNormalization()
    layer(floats([[0], [2]]))
    return "training" if _array(layer.moving_mean)[0] else "inference"


@PROBES
def batch_norm_offset() -> Measured:
    x = np.random.default_rng(0).normal(size=(64, 1)).astype("float32") + np.float32(1e4)
    out = _array(layers.BatchNormalization(epsilon=1e-5)(x, training=True))
    true = (x.astype("float64") - x.mean(dtype="float64")) / x.astype("float64").std()
    return "kept" if np.abs(out - true).max() < 0.05 else "lost"


@PROBES
def dense_kernel_initial() -> Measured:
    layer = layers.Dense(50)
    layer.build((1, 100))
    return float(np.abs(layer.get_weights()[0]).max())


@PROBES
def dense_bias_initial() -> Measured:
    layer = layers.Dense(8)
    layer.build((1, 4))
    return "drawn" if np.abs(layer.get_weights()[1]).max() > 0 else "zeros"


@PROBES
def dense_kernel_layout() -> Measured:
    layer = layers.Dense(3)
    layer.build((1, 2))
    return "out, in" if layer.get_weights()[0].shape == (3, 2) else "in, out"


@PROBES
def embedding_initial() -> Measured:
    layer = layers.Embedding(200, 200)
    layer.build((1,))
    return float(layer.get_weights()[0].std())


@PROBES
def he_normal_tail() -> Measured:
    drawn = _array(keras.initializers.HeNormal()((300, 300)))
    return "cut off" if np.abs(drawn).max() / drawn.std() < 2.5 else "whole"


def _looked_up(index: int) -> Measured:
    layer = built(layers.Embedding(3, 1), 1)
    layer.set_weights([np.arange(1, 4, dtype="float32")[:, None]])
    try:
        found = float(_array(layer(np.array([index])))[0, 0])
    except Exception:  # each engine raises a different error
        return "error"
    return "NaN" if found != found else f"row {int(found) - 1}"


PROBES.looked_up(_looked_up)


@PROBES
def padding_index() -> Measured:
    layer = layers.Embedding(3, 2, mask_zero=True)
    layer.build((1,))
    return "row of zeros" if np.abs(layer.get_weights()[0][0]).max() == 0 else "mask"


# Measurements of losses, optimizers and numeric functions follow.


def _moved(optimizer: Any, gradient: float, start: float = 0.0) -> float:
    """Return how far one step moves a parameter, divided by the learning rate."""
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
def cosine_similarity() -> Measured:
    return _loss(losses.cosine_similarity(floats([[1, 1]]), floats([[1, 1]])))


@PROBES
def rmsprop_epsilon_place() -> Measured:
    return _moved(optimizers.RMSprop(RATE, rho=0.0, epsilon=1.0), 1.0)


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
def float64_array() -> Measured:
    found = ops.convert_to_tensor(np.zeros(1))
    return str(keras.backend.standardize_dtype(found.dtype))


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


PROBES.update(
    {
        "gru-biases": lambda: int(built(layers.GRU(1), 1, 1, 1).count_params()),
        "lstm-biases": lambda: int(built(layers.LSTM(1), 1, 1, 1).count_params()),
        "rnn-biases": lambda: int(built(layers.SimpleRNN(1), 1, 1, 1).count_params()),
        "leaky-relu-slope": lambda: -float(_array(layers.LeakyReLU()(floats([-1])))[0]),
        "batch-norm-epsilon": lambda: float(layers.BatchNormalization().epsilon),
        "layer-norm-epsilon": lambda: float(layers.LayerNormalization().epsilon),
        "squared-error": lambda: _loss(losses.mean_squared_error(floats([[1]]), floats([[0]]))),
        "adam-epsilon": lambda: float(optimizers.Adam().epsilon),
        "adam-epsilon-place": lambda: _moved(optimizers.Adam(RATE, epsilon=1e-8), 1e-8),
        "adam-weight-decay": lambda: _moved(optimizers.Adam(RATE, weight_decay=0.125), 0.0, 1.0),
        "adamw-decay": lambda: float(optimizers.AdamW().weight_decay),
        "rmsprop-decay": lambda: float(optimizers.RMSprop().rho),
        "sgd-rate": lambda: float(_default(optimizers.SGD, "learning_rate")),
        "adagrad-start": lambda: float(optimizers.Adagrad().initial_accumulator_value),
        "default-float": lambda: str(keras.backend.standardize_dtype(ops.zeros(1).dtype)),
        "default-integer": lambda: str(keras.backend.standardize_dtype(ops.arange(1).dtype)),
        "standard-deviation": lambda: float(_array(ops.std(floats([0, 2])))),
        "median-of-two": lambda: float(_array(ops.median(floats([1, 2])))),
        "argmax-nan": lambda: int(_array(ops.argmax(floats([1, math.nan, 2])))),
        "order-of-data": lambda: "shuffled" if _default(keras.Model.fit, "shuffle") else "as given",
    }
)
