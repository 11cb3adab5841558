"""Training of the Pure Python RNN as in the notebook, with or without the notebook's mistakes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Array = np.ndarray
# The weights' names in the spec, in the order in which In[267] draws the weights.
INPUT, OUTPUT, HIDDEN = "rnn.W", "out.W", "rnn.U"


def draw(vocab: int, hidden: int) -> dict[str, Array]:
    """Draw the initial weights of In[267] with ``RandomState(0)``."""
    state, scale = np.random.RandomState(0), np.sqrt(2 / vocab)
    return {
        INPUT: state.normal(scale=scale, size=(vocab, hidden)),
        OUTPUT: state.normal(scale=scale, size=(hidden, vocab)),
        HIDDEN: np.eye(hidden),
    }


def forward(x: Array, w: Mapping[str, Array]) -> tuple[list[Array], list[Array]]:
    """Return the hidden states (starting with zeros) and predictions for ``x`` [time, vocab]."""
    states, predictions = [np.zeros(len(w[HIDDEN]))], []
    for row in x:
        states.append(np.maximum(0, row @ w[INPUT] + states[-1] @ w[HIDDEN]))
        logits = states[-1] @ w[OUTPUT]
        e = np.exp(logits - logits.max())
        predictions.append(e / e.sum())
    return states, predictions


def loss(predictions: list[Array], y: Array) -> float:
    """Return the loss that the notebook prints: the clipped cross-entropy, summed over time."""
    clipped = np.clip(np.stack(predictions), 1e-7, 1 - 1e-7)
    return float(-np.sum(y * np.log(clipped)))


def moves(
    x: Array, y: Array, w: Mapping[str, Array], scalar: bool, rate: float = 0.0
) -> dict[str, Array]:
    """Return the update of each weight by In[266] for one sequence, divided by the learning rate.

    ``scalar`` uses an inner product instead of the outer product, as in the notebook. With a
    ``rate``, each step of the loop updates the weights that later steps read, as in the notebook.
    """
    states, predictions = forward(x, w)
    now = {name: array.copy() for name, array in w.items()}
    total = {name: np.zeros_like(array) for name, array in w.items()}
    d = np.zeros(len(w[HIDDEN]))
    for t in reversed(range(len(x))):
        error = predictions[t] - y[t]
        d = (d @ now[HIDDEN].T + error @ now[OUTPUT].T) * (states[t + 1] > 0)
        parts = {OUTPUT: np.outer(states[t + 1], error), INPUT: np.outer(x[t], d)}
        # The notebook leaves out the outer product with states[0], which is zero.
        parts[HIDDEN] = (
            np.full_like(now[HIDDEN], states[t] @ d) if scalar else np.outer(states[t], d)
        )
        for name, part in parts.items():
            total[name] += part
            if rate:
                now[name] -= rate * part
    return total


def train(xs: Array, ys: Array, rate: float, literal: bool) -> tuple[float, float]:
    """Train on all sequences, shape ``[sequences, time, vocab]``; return the mean losses of the
    first thousand and of the last thousand sequences.

    ``literal`` updates weights as In[266] does; otherwise the true gradient is used.
    """
    w = draw(xs.shape[-1], 256)
    losses = []
    for x, y in zip(xs, ys, strict=True):
        losses.append(loss(forward(x, w)[1], y))
        for name, move in moves(x, y, w, scalar=literal, rate=rate if literal else 0.0).items():
            w[name] -= rate * move
    return float(np.mean(losses[:1000])), float(np.mean(losses[-1000:]))
