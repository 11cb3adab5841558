"""The Lesson 6 models in plain JAX: ``jax.jit``, ``jax.lax.scan`` and optax.

One jitted call a step, as in the examples of JAX and optax: parameters and optimizer state are
donated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from contract import Given
from jax_layers import (
    Arrays,
    batch_norm,
    dense,
    embedding,
    gru,
    gru_after,
    hard_sigmoid,
    lstm,
    rnn,
    time_major,
    tree,
    zeros,
)
from jax_steps import Forward, Training, use_dtype

# (parameters, inputs, carried state and statistics, training) -> (logits by output, carried)
Model = Callable[[Any, Arrays, Arrays, bool], tuple[dict[str, jax.Array], dict[str, jax.Array]]]


def by_position(count: int, activation: Any) -> Model:
    """Shared layers, written out for every position: three_char and first_rnn."""

    def model(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
        h = jax.nn.relu(dense(p["dense_in"], embedding(p["embed_1"], inputs["c1"])))
        for k in range(2, count + 1):
            x = embedding(p[f"embed_{k}"], inputs[f"c{k}"])
            h = jax.nn.relu(dense(p["dense_in"], x)) + activation(dense(p["dense_hidden"], h))
        return {"next_char": dense(p["dense_out"], h)}, carried

    return model


def sequence_unrolled(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
    h = jax.nn.relu(dense(p["dense_in"], inputs["zero"]))
    logits = {}
    for k in range(1, 9):
        x = embedding(p[f"embed_{k}"], inputs[f"c{k}"])
        h = jax.nn.relu(dense(p["dense_in"], x)) + jax.nn.relu(dense(p["dense_hidden"], h))
        logits[f"next_{k}"] = dense(p["output"], h)
    return logits, carried


def simple_rnn(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
    x = embedding(p["embed"], time_major(inputs["chars"]))
    return {"next_char": dense(p["out"], rnn(p["rnn"], x, zeros(p["rnn"], x))[-1])}, carried


def sequence_rnn(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
    x = embedding(p["embed"], time_major(inputs["chars"]))
    return {"next_chars": dense(p["out"], rnn(p["rnn"], x, zeros(p["rnn"], x)))}, carried


def sequence_onehot(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
    x = time_major(inputs["chars"])
    return {"next_chars": dense(p["out"], rnn(p["rnn"], x, zeros(p["rnn"], x)))}, carried


def theano_rnn(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
    states = rnn(p["rnn"], time_major(inputs["chars"]), inputs["h0"])
    return {"next_chars": dense(p["out"], states)}, carried


def pure_python_rnn(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
    x = time_major(inputs["chars"])
    return {"next_chars": rnn(p["rnn"], x, zeros(p["rnn"], x)) @ p["out"]["W"]}, carried


def lstm_model(p: Any, inputs: Arrays, carried: Arrays, training: bool, gate: Any) -> Any:
    x = embedding(p["embed"], time_major(inputs["chars"]))
    moving = carried["norm.moving_mean"], carried["norm.moving_variance"]
    x, (mean, variance) = batch_norm(p["norm"], x, moving, training)
    states, (h, c) = lstm(p["lstm"], x, (carried["h"], carried["c"]), gate)
    carried = {"h": h, "c": c, "norm.moving_mean": mean, "norm.moving_variance": variance}
    return {"next_chars": dense(p["out"], states)}, carried


def keras_gru(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
    x = time_major(inputs["chars"])
    states = gru(p["gru"], x, zeros(p["gru"], x), jax.nn.relu, hard_sigmoid)
    return {"next_chars": dense(p["out"], states)}, carried


def theano_gru(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
    x = time_major(inputs["chars"])
    states = gru(p["gru"], x, inputs["h0"], jax.nn.sigmoid, jax.nn.sigmoid)
    return {"next_chars": dense(p["out"], states)}, carried


def index_gru(p: Any, inputs: Arrays, carried: Arrays, training: bool) -> Any:
    x = embedding(p["embed"], time_major(inputs["chars"]))
    return {"next_chars": dense(p["out"], gru_after(p["gru"], x, zeros(p["gru"], x)))}, carried


MODELS: Mapping[str, Model] = {
    "three_char": by_position(3, jnp.tanh),
    "first_rnn": by_position(8, jax.nn.relu),
    "simple_rnn": simple_rnn,
    "sequence_unrolled": sequence_unrolled,
    "sequence_rnn": sequence_rnn,
    "sequence_onehot": sequence_onehot,
    "stateful_lstm": partial(lstm_model, gate=hard_sigmoid),
    "sigmoid_lstm": partial(lstm_model, gate=jax.nn.sigmoid),
    "index_gru": index_gru,
    "theano_rnn": theano_rnn,
    "pure_python_rnn": pure_python_rnn,
    "keras_gru": keras_gru,
    "theano_gru": theano_gru,
    "theano_gru_combined": theano_gru,
}
SUMMED = ("theano_rnn", "pure_python_rnn", "theano_gru", "theano_gru_combined")


def loss_of(system: str, logits: Arrays, targets: Arrays) -> jax.Array:
    """The mean over all predictions, or their sum; of several outputs the sum of the means."""
    total = jnp.sum if system in SUMMED else jnp.mean
    losses = []
    # In the same order: a dict comes into a jitted function sorted by its keys.
    for values, target in zip(logits.values(), map(time_major, targets.values()), strict=True):
        if jnp.issubdtype(target.dtype, jnp.integer):
            entropy = optax.softmax_cross_entropy_with_integer_labels(values, target)
        else:
            entropy = optax.softmax_cross_entropy(values, target)
        losses.append(total(entropy))
    return sum(losses[1:], losses[0])


def loss_function(system: str) -> Callable[..., Any]:
    """(parameters, carried, batch) to (loss, carried)."""

    def loss(parameters: Any, carried: Any, batch: Any) -> Any:
        logits, carried = MODELS[system](parameters, batch["inputs"], carried, True)
        return loss_of(system, logits, batch["targets"]), carried

    return loss


def prediction(system: str) -> Callable[..., Any]:
    """(parameters, carried, inputs) to (outputs, carried)."""

    def predict(parameters: Any, carried: Any, inputs: Any) -> Any:
        logits, carried = MODELS[system](parameters, inputs, carried, False)
        outputs = {f"output.{n}": jax.nn.softmax(values) for n, values in logits.items()}
        return {n: y.swapaxes(0, 1) if y.ndim > 2 else y for n, y in outputs.items()}, carried

    return predict


OPTIMIZERS: Mapping[str, Callable[[float, Arrays], Any]] = {
    # epsilon_hat: optax has epsilon beside the root of the corrected moment only.
    "adam_epsilon_hat": lambda rate, n: optax.adam(rate, n["beta_1"], n["beta_2"], n["epsilon"]),
    "sgd": lambda rate, n: optax.sgd(rate),
}


def make(given: Given) -> Training | Forward:
    """Steps of a system in ``mode`` "train" or "forward", in the dtype of the parameters."""
    use_dtype(given)
    arrays = tree(given.parameters), {**given.state, **given.statistics}, given.batches
    if given.mode == "forward":
        return Forward(prediction(given.system), *arrays)
    chosen = OPTIMIZERS[given.optimizer["optimizer"]](given.learning_rate, given.optimizer)
    return Training(loss_function(given.system), chosen, *arrays)
