"""Keras' own layers, losses and optimizers in float64.

On TensorFlow: on torch and jax Keras 3.15 computes float64 in float32 (``result_type``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf

Tensors = Mapping[str, Any]
Kernel = Callable[[Tensors], Tensors]
# Both: the policy decides what layers compute in, floatx what losses and optimizers do.
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
# The gate is handed in, the kernel is Keras': Keras 3 has no hard sigmoid of slope 1/5 any more.
NAMES: Mapping[str, Any] = {
    "hard_sigmoid_sixth": "hard_sigmoid",
    "hard_sigmoid_fifth": lambda x: keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0),
}


def _named(name: str) -> Any:
    return NAMES.get(name, name)


def _columns(v: Tensors, letter: str, gates: str) -> Any:
    return tf.concat([v[f"{letter}_{gate}"] for gate in gates], -1)


def _call(
    layer: Any, weights: list[Any], v: Tensors, states: Sequence[str], **told: Any
) -> Tensors:
    layer.build(tuple(v["x"].shape))
    assert [tuple(w.shape) for w in layer.trainable_variables] == [tuple(w.shape) for w in weights]
    # Seeds are the only other variables, and nothing here is random.
    others = [variable.value for variable in layer.non_trainable_variables]
    initial = [v[name] for name in states]
    (y, *last), _ = layer.stateless_call(weights, others, v["x"], initial_state=initial, **told)
    return {"y": y, **{f"last_{n}": s for n, s in zip(states, last, strict=True)}}


_WHOLE = {"return_sequences": True, "return_state": True}


def simple_rnn(activation: str, use_bias: bool) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        units = v["h"].shape[-1]
        layer = keras.layers.SimpleRNN(
            units, activation=_named(activation), use_bias=use_bias, **_WHOLE
        )
        return _call(layer, [v[n] for n in ("WUb" if use_bias else "WU")], v, "h")

    return kernel


def lstm(activation: str, gate: str) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        layer = keras.layers.LSTM(
            v["h"].shape[-1],
            activation=_named(activation),
            recurrent_activation=_named(gate),
            **_WHOLE,
        )
        return _call(layer, [_columns(v, letter, "ifgo") for letter in "WUb"], v, "hc")

    return kernel


def gru(activation: str, gate: str, reset_after: bool = False) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        layer = keras.layers.GRU(
            v["h"].shape[-1],
            activation=_named(activation),
            recurrent_activation=_named(gate),
            reset_after=reset_after,
            **_WHOLE,
        )
        bias = _columns(v, "b", "zrn")
        if reset_after:
            bias = tf.stack([bias, _columns(v, "c", "zrn")])
        return _call(layer, [_columns(v, "W", "zrn"), _columns(v, "U", "zrn"), bias], v, "h")

    return kernel


def bidirectional_lstm(activation: str, gate: str) -> Kernel:
    """Both directions, of rows with a mask where there is one."""

    def kernel(v: Tensors) -> Tensors:
        told = {"mask": v["mask"]} if "mask" in v else {}
        inner = keras.layers.LSTM(
            v["h"].shape[-1], activation=activation, recurrent_activation=gate,
            zero_output_for_mask=bool(told), **_WHOLE,
        )  # fmt: skip
        weights = [_columns(v, f"{way}{n}", "ifgo") for way in ("", "back_") for n in "WUb"]
        both = keras.layers.Bidirectional(inner)
        return _call(both, weights, v, ("h", "c", "back_h", "back_c"), **told)

    return kernel


def bidirectional_gru_reset_after(activation: str, gate: str) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        inner = keras.layers.GRU(
            v["h"].shape[-1], activation=activation, recurrent_activation=gate, **_WHOLE
        )
        weights: list[Any] = []
        for way in ("", "back_"):
            weights += [_columns(v, f"{way}{n}", "zrn") for n in "WU"]
            weights.append(tf.stack([_columns(v, f"{way}{n}", "zrn") for n in "bc"]))
        return _call(keras.layers.Bidirectional(inner), weights, v, ("h", "back_h"))

    return kernel


def gru_concatenated(activation: str, gate: str) -> Kernel:
    """The same layer, its two kernels cut from the one of the definition."""

    def kernel(v: Tensors) -> Tensors:
        units = v["h"].shape[-1]
        parts = {f"U_{g}": v[f"K_{g}"][:units] for g in "zrn"}
        parts |= {f"W_{g}": v[f"K_{g}"][units:] for g in "zrn"}
        return gru(activation, gate)({**v, **parts})

    return kernel


def batch_norm(training: bool, epsilon: float, momentum: float) -> Kernel:
    def kernel(v: Tensors) -> Tensors:
        layer = keras.layers.BatchNormalization(epsilon=epsilon, momentum=momentum)
        layer.build(tuple(v["x"].shape))
        statistics = [v["moving_mean"], v["moving_variance"]]
        weights = [v["gamma"], v["beta"]]
        y, moved = layer.stateless_call(weights, statistics, v["x"], training=training)
        return {"y": y, "after.moving_mean": moved[0], "after.moving_variance": moved[1]}

    return kernel


def normalised(layer: Any, names: tuple[str, ...] = ("gamma", "beta")) -> Kernel:
    """A normalisation of Keras, which is made anew for each shape."""

    def kernel(v: Tensors) -> Tensors:
        made = layer.__class__.from_config(layer.get_config())
        made.build(tuple(v["x"].shape))
        y, _ = made.stateless_call([v[n] for n in names], [], v["x"])
        return {"y": y}

    return kernel


def unary(function: Callable[[Any], Any]) -> Kernel:
    return lambda v: {"y": function(v["x"])}


def accuracy(v: Tensors) -> Tensors:
    return {"y": keras.metrics.sparse_categorical_accuracy(v["target"], v["logits"])}


def clipped_cross_entropy(epsilon: float) -> Kernel:
    """Keras clips at its global fuzz factor, after dividing by a sum that is exactly 1 here."""

    def kernel(v: Tensors) -> Tensors:
        before = keras.config.epsilon()
        keras.config.set_epsilon(epsilon)
        y = keras.losses.categorical_crossentropy(v["target"], v["probabilities"])
        keras.config.set_epsilon(before)
        return {"y": y}

    return kernel


def evaluate(
    kernel: Kernel, given: Mapping[str, Any], against: Iterable[str], cotangents: Mapping[str, Any]
) -> dict[str, Any]:
    """A kernel's outputs and, where there are cotangents, its gradients."""
    leaves = {n: tf.constant(a) for n, a in given.items()}
    with tf.GradientTape() as tape:
        names = list(against)
        for name in names:
            tape.watch(leaves[name])
        found = dict(kernel(leaves))
        total = sum(tf.reduce_sum(found[n] * tf.constant(c)) for n, c in cotangents.items())
    if cotangents:
        gradients = tape.gradient(total, [leaves[n] for n in names])
        found |= {f"gradient.{n}": g for n, g in zip(names, gradients, strict=True)}
    return {n: np.asarray(value) for n, value in found.items()}


def optimizer(make: Callable[..., Any], slots: Mapping[str, str], **options: float) -> Any:
    """Steps of a ``keras.optimizers`` class. Rates and betas are float32s, whatever floatx."""
    assert all(np.float32(value) == value for value in options.values())

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        stepper = make(learning_rate=1.0, **options)
        p = keras.Variable(given["p"], dtype="float64", name="p")
        stepper.build([p])
        history: dict[str, list[Any]] = {"p": [], **{n: [] for n in slots}}
        for g, rate in zip(given["gradients"], given["learning_rates"], strict=True):
            stepper.learning_rate = rate
            stepper.apply([tf.constant(g)], [p])
            history["p"].append(np.array(p))
            for name, theirs in slots.items():
                (slot,) = getattr(stepper, theirs)
                history[name].append(np.array(slot))
        return {name: np.stack(values) for name, values in history.items()}

    return run


def warmup_cosine(v: Tensors) -> Tensors:
    """Keras' schedule, asked step by step."""
    first, steps = (int(np.asarray(v[name]).flat[0]) for name in ("first", "steps"))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - first, warmup_target=1.0, warmup_steps=first
    )
    t = np.asarray(v["t"])
    return {"y": tf.constant([float(schedule(step)) for step in t.flat], shape=t.shape)}
