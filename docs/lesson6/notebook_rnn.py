"""The notebook's own training of its Pure Python RNN, with its mistakes or without them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Array = np.ndarray
# In[267]: the order in which the weights are drawn, and their names in the spec.
INPUT, OUTPUT, HIDDEN = "rnn.W", "out.W", "rnn.U"


def draw(vocab: int, hidden: int) -> dict[str, Array]:
    """The first weights of In[267], from ``RandomState(0)``."""
    state, scale = np.random.RandomState(0), np.sqrt(2 / vocab)
    return {
        INPUT: state.normal(scale=scale, size=(vocab, hidden)),
        OUTPUT: state.normal(scale=scale, size=(hidden, vocab)),
        HIDDEN: np.eye(hidden),
    }


def forward(x: Array, w: Mapping[str, Array]) -> tuple[list[Array], list[Array]]:
    """Hidden states, the zero state first, and predictions, for ``x`` [time, vocab]."""
    states, predictions = [np.zeros(len(w[HIDDEN]))], []
    for row in x:
        states.append(np.maximum(0, row @ w[INPUT] + states[-1] @ w[HIDDEN]))
        logits = states[-1] @ w[OUTPUT]
        e = np.exp(logits - logits.max())
        predictions.append(e / e.sum())
    return states, predictions


def loss(predictions: list[Array], y: Array) -> float:
    """What the notebook prints: the clipped cross-entropy, summed over time."""
    clipped = np.clip(np.stack(predictions), 1e-7, 1 - 1e-7)
    return float(-np.sum(y * np.log(clipped)))


def moves(
    x: Array, y: Array, w: Mapping[str, Array], scalar: bool, rate: float = 0.0
) -> dict[str, Array]:
    """In[266]: what is subtracted from each weight for one sequence, over the learning rate.

    ``scalar``: the inner product where the outer one belongs. A ``rate`` makes each step of the
    loop move the weights that the steps after it read.
    """
    states, predictions = forward(x, w)
    now = {name: array.copy() for name, array in w.items()}
    total = {name: np.zeros_like(array) for name, array in w.items()}
    d = np.zeros(len(w[HIDDEN]))
    for t in reversed(range(len(x))):
        error = predictions[t] - y[t]
        d = (d @ now[HIDDEN].T + error @ now[OUTPUT].T) * (states[t + 1] > 0)
        parts = {OUTPUT: np.outer(states[t + 1], error), INPUT: np.outer(x[t], d)}
        # states[0] is zero, so the outer product is too: the notebook leaves it out.
        parts[HIDDEN] = (
            np.full_like(now[HIDDEN], states[t] @ d) if scalar else np.outer(states[t], d)
        )
        for name, part in parts.items():
            total[name] += part
            if rate:
                now[name] -= rate * part
    return total


def train(xs: Array, ys: Array, rate: float, literal: bool) -> tuple[float, float]:
    """Mean loss over the first and the last thousand of the sequences [sequences, time, vocab].

    ``literal`` is In[266] as it stands; otherwise the gradient is the true one.
    """
    w = draw(xs.shape[-1], 256)
    losses = []
    for x, y in zip(xs, ys, strict=True):
        losses.append(loss(forward(x, w)[1], y))
        for name, move in moves(x, y, w, scalar=literal, rate=rate if literal else 0.0).items():
            w[name] -= rate * move
    return float(np.mean(losses[:1000])), float(np.mean(losses[-1000:]))
