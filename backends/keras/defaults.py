"""What Keras does where nothing is said: a measurement for each entry of ``specs/defaults``."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from harness.extend import Measured, Probes

PROBES = Probes()
BIG = 50.0  # saturates a gate


def built(layer: Any, *shape: int | None) -> Any:
    """A layer with parameters of zeros."""
    layer.build(shape)
    layer.set_weights([np.zeros(w.shape, "float32") for w in layer.weights])
    return layer


def floats(numbers: Any) -> Any:
    """An array of float32."""
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
def gru_biases() -> Measured:
    return int(built(layers.GRU(1), 1, 1, 1).count_params())


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
def lstm_biases() -> Measured:
    return int(built(layers.LSTM(1), 1, 1, 1).count_params())


@PROBES
def lstm_forget_bias() -> Measured:
    layer = layers.LSTM(4)
    layer.build((1, 1, 2))
    bias = layer.get_weights()[2][4:8]
    return "drawn" if bias.std() > 0 else float(bias[0])


@PROBES
def rnn_biases() -> Measured:
    return int(built(layers.SimpleRNN(1), 1, 1, 1).count_params())


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
def leaky_relu_slope() -> Measured:
    return -float(_array(layers.LeakyReLU()(floats([-1])))[0])


@PROBES
def batch_norm_epsilon() -> Measured:
    return float(layers.BatchNormalization().epsilon)


@PROBES
def batch_norm_momentum() -> Measured:
    layer = layers.BatchNormalization()
    layer(floats([[0], [2]]), training=True)
    return float(_array(layer.moving_mean)[0])  # of a batch whose mean is 1


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
def layer_norm_epsilon() -> Measured:
    return float(layers.LayerNormalization().epsilon)


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
    except Exception:  # each engine has an error of its own
        return "error"
    return "NaN" if found != found else f"row {int(found) - 1}"


PROBES.looked_up(_looked_up)


@PROBES
def padding_index() -> Measured:
    layer = layers.Embedding(3, 2, mask_zero=True)
    layer.build((1,))
    return "row of zeros" if np.abs(layer.get_weights()[0][0]).max() == 0 else "mask"
