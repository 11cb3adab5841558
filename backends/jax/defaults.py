"""Measurements of the defaults of JAX and optax, e.g. of an optimizer's epsilon: one function for
each entry of ``specs/defaults``.

JAX has no layers with parameters, so there are no measurements of such layers.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from harness.extend import Measured, Probes

PROBES = Probes()
RATE = 2.0**-10  # exact in every dtype


def _derivative(function: Any, at: float) -> float:
    return float(jax.grad(lambda x: function(x).sum())(jnp.array([at]))[0])


def _step_size(transform: Any, gradient: float, start: float = 0.0) -> float:
    """Return how far one optimizer step moves a parameter from ``start``, divided by the learning
    rate. The gradient is ``gradient``."""
    p = jnp.array([start])
    updates, _ = transform.update(jnp.array([gradient]), transform.init(p), p)
    return float(-updates[0]) / RATE


def _default_argument(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default


def _look_up(index: int) -> Measured:
    entry = float(jnp.arange(1.0, 4.0)[jnp.array(index)])
    return "NaN" if entry != entry else f"row {int(entry) - 1}"


PROBES.looked_up(_look_up)


@PROBES
def cross_entropy_axis() -> Measured:
    losses = optax.softmax_cross_entropy(jnp.zeros((2, 3, 5)), jnp.zeros((2, 3, 5)))
    return -1 if losses.shape == (2, 3) else 1


@PROBES
def cross_entropy_targets() -> Measured:
    def loss(logits: Any) -> Any:
        return optax.softmax_cross_entropy(logits, jnp.array([[1.0, 0.5]])).sum()

    return float(jax.grad(loss)(jnp.zeros((1, 2)))[0, 0])


@PROBES
def cross_entropy_ignored() -> Measured:
    losses = optax.softmax_cross_entropy_with_integer_labels(
        jnp.zeros((2, 3)), jnp.array([0, -100])
    )
    return "NaN" if math.isnan(float(losses[1])) else "counted"


@PROBES
def momentum_and_rate() -> Measured:
    transform = optax.inject_hyperparams(optax.sgd)(1.0, momentum=0.5)
    p, g = jnp.zeros(1), jnp.ones(1)
    _, state = transform.update(g, transform.init(p), p)
    state.hyperparams["learning_rate"] = jnp.asarray(0.125)
    updates, _ = transform.update(g, state, p)
    return -float(updates[0])


@PROBES
def gradient_clipping() -> Measured:
    gradients = [jnp.ones(1), jnp.ones(1)]
    transform = optax.clip_by_global_norm(1.0)
    updates, _ = transform.update(gradients, transform.init(gradients))
    return float(updates[0][0])


PROBES.observe(
    {
        "softmax-axis": lambda: jax.nn.softmax(jnp.zeros((2, 3, 5))),
        "gelu-form": lambda: jax.nn.gelu(1.0),
        "batch-norm-offset": lambda x: jax.nn.standardize(jnp.asarray(x), axis=0, epsilon=1e-5),
        "he-normal-tail": lambda: jax.nn.initializers.he_normal()(jax.random.key(0), (300, 300)),
        "cross-entropy-input": lambda: optax.softmax_cross_entropy(
            jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0]])
        ),
        "loss-reduction": lambda: optax.softmax_cross_entropy(
            jnp.zeros((4, 2)), jnp.ones((4, 2)) / 2
        ),
    }
)
PROBES.update(
    {
        "hard-sigmoid-slope": lambda: float(jax.nn.hard_sigmoid(1.0) - jax.nn.hard_sigmoid(0.0)),
        "relu-at-zero": lambda: _derivative(jax.nn.relu, 0.0),
        "maximum-at-tie": lambda: _derivative(lambda x: jnp.maximum(x, 0), 0.0),
        "clip-at-bound": lambda: _derivative(lambda x: jnp.clip(x, 0.0, 1.0), 1.0),
        "abs-at-zero": lambda: _derivative(jnp.abs, 0.0),
        "max-at-tie": lambda: float(jax.grad(lambda x: x.max(1).sum())(jnp.ones((1, 2)))[0, 0]),
        "leaky-relu-slope": lambda: -float(jax.nn.leaky_relu(-1.0)),
        "layer-norm-epsilon": lambda: float(_default_argument(jax.nn.standardize, "epsilon")),
        "repeated-index-add": lambda: float(jnp.zeros(2).at[jnp.array([0, 0])].add(1)[0]),
        "squared-error": lambda: float(optax.l2_loss(jnp.array([1.0]))[0]),
        "cross-entropy-gap": lambda: float(
            optax.softmax_cross_entropy(jnp.array([0.0, 30.0]), jnp.array([1.0, 0.0]))
        ),
        "kl-divergence": lambda: float(
            optax.losses.kl_divergence(jnp.log(jnp.array([0.25, 0.75])), jnp.array([0.5, 0.5]))
        ),
        "cosine-similarity": lambda: float(optax.cosine_similarity(jnp.ones(2), jnp.ones(2))),
        "adam-epsilon": lambda: float(_default_argument(optax.adam, "eps")),
        "adam-epsilon-place": lambda: _step_size(optax.adam(RATE, eps=1e-8), 1e-8),
        "adam-weight-decay": lambda: _step_size(optax.adamw(RATE, weight_decay=0.125), 0.0, 1.0),
        "adamw-decay": lambda: float(_default_argument(optax.adamw, "weight_decay")),
        "rmsprop-decay": lambda: float(_default_argument(optax.rmsprop, "decay")),
        "rmsprop-epsilon-place": lambda: _step_size(optax.rmsprop(RATE, decay=0.0, eps=1.0), 1.0),
        "adagrad-start": lambda: float(
            _default_argument(optax.adagrad, "initial_accumulator_value")
        ),
        "default-float": lambda: str(jnp.zeros(1).dtype),
        "default-integer": lambda: str(jnp.arange(1).dtype),
        "float64-array": lambda: str(jnp.asarray(np.zeros(1)).dtype),
        "standard-deviation": lambda: float(jnp.array([0.0, 2.0]).std()),
        "median-of-two": lambda: float(jnp.median(jnp.array([1.0, 2.0]))),
        "argmax-nan": lambda: int(jnp.argmax(jnp.array([1.0, math.nan, 2.0]))),
    }
)
