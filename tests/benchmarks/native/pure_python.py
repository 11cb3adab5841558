"""The Pure Python RNN of the Lesson 6 notebook: one sequence at a time, one vector at a time.

Its structure and its cost are kept: a scan of Python calls, float64 vectors, an outer product for
each weight at each character, the Jacobian of softmax. The gradient is the one that its formulas
mean: the recurrent matrix gets an outer product, not a scalar, and the weights move after the
batch. It trains ``pure_python_rnn`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from contract import Given

Array = np.ndarray
Arrays = Mapping[str, Array]

EPSILON = 1e-7


def relu(x: Array) -> Array:
    """x where it is above 0."""
    return np.maximum(0.0, x)


def relu_d(x: Array) -> Array:
    """The derivative of relu."""
    return (x > 0.0) * 1.0


def cross_entropy(predicted: Array, actual: Array) -> Any:
    """Minus the logarithm of the probability of what came, kept off 0."""
    return -np.sum(actual * np.log(np.clip(predicted, EPSILON, 1 - EPSILON)))


def cross_entropy_d(predicted: Array, actual: Array) -> Array:
    """The derivative of the cross-entropy by the probabilities."""
    return -actual / predicted


def softmax(x: Array) -> Array:
    """Probabilities, without a shift."""
    return np.exp(x) / np.exp(x).sum()


def softmax_d(x: Array) -> Array:
    """The Jacobian of softmax [vocab, vocab]."""
    probabilities = softmax(x)
    jacobian = np.expand_dims(-probabilities, -1) * probabilities
    jacobian[np.diag_indices_from(jacobian)] = probabilities * (1 - probabilities)
    return jacobian


def column(x: Array) -> Array:
    """A vector as a column."""
    return x[:, np.newaxis]


def scan(function: Callable[[Any, Any], Any], start: Any, sequence: Iterable[Any]) -> list[Any]:
    """All results of a function that is given its last result and the next item."""
    results, last = [], start
    for item in sequence:
        last = function(last, item)
        results.append(last)
    return results


class Steps:
    """A step is a pass over a batch, and an update at its end."""

    def __init__(
        self, parameters: Arrays, batches: Sequence[Mapping[str, Arrays]], learning_rate: float
    ) -> None:
        self.w_x, self.w_h, self.w_y = (
            parameters[name].astype(np.float64) for name in ("rnn.W", "rnn.U", "out.W")
        )
        self.alpha = learning_rate
        self.feed(batches)

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Take other batches."""
        self.batches = [
            (batch["inputs"]["chars"].astype(np.float64), batch["targets"]["target"])
            for batch in batches
        ]

    def start(self, index: int) -> float:
        """Train on batch ``index`` modulo their number; the loss before the update."""
        inputs, targets = self.batches[index % len(self.batches)]
        self.moves = [np.zeros_like(w) for w in (self.w_x, self.w_h, self.w_y)]
        loss = 0.0
        for x, y in zip(inputs, targets, strict=True):
            results = self.forward(x, y)
            loss += results[-1][0]
            self.backward(results, x, y)
        for weight, move in zip((self.w_x, self.w_h, self.w_y), self.moves, strict=True):
            weight -= move
        return loss

    def finish(self, handle: float) -> dict[str, Array]:
        """The loss by its name."""
        return {"loss": np.asarray(handle)}

    def forward(self, x: Array, y: Array) -> list[Any]:
        """What :meth:`one_character` gives for each character of a sequence [time, vocab]."""
        start = (0.0, 0, 0, np.zeros(len(self.w_h)), 0)
        return scan(self.one_character, start, zip(x, y, strict=True))

    def one_character(self, previous: Any, item: tuple[Array, Array]) -> tuple[Any, ...]:
        """Loss so far, hidden layer and prediction before their activations, and after."""
        total, _, _, hidden, _ = previous
        x, y = item
        pre_hidden = np.dot(x, self.w_x) + np.dot(hidden, self.w_h)
        hidden = relu(pre_hidden)
        pre_predicted = np.dot(hidden, self.w_y)
        predicted = softmax(pre_predicted)
        return (
            total + cross_entropy(predicted, y),
            pre_hidden,
            pre_predicted,
            hidden,
            predicted,
        )

    def backward(self, results: Sequence[Any], xs: Array, ys: Array) -> None:
        """Add a sequence's part of the update, from its last character to its first."""
        move_x, move_h, move_y = self.moves
        d_pre_hidden = np.zeros(len(self.w_h))
        for t in reversed(range(len(xs))):
            _, pre_hidden, pre_predicted, hidden, predicted = results[t]
            d_pre_predicted = softmax_d(pre_predicted).dot(cross_entropy_d(predicted, ys[t]))
            d_hidden = np.dot(d_pre_hidden, self.w_h.T) + np.dot(d_pre_predicted, self.w_y.T)
            d_pre_hidden = d_hidden * relu_d(pre_hidden)
            move_y += column(hidden) * d_pre_predicted * self.alpha
            if t > 0:
                move_h += column(results[t - 1][3]) * d_pre_hidden * self.alpha
            move_x += column(xs[t]) * d_pre_hidden * self.alpha


def make(given: Given) -> Steps:
    """Training steps of the notebook's model; ``ValueError`` for anything else."""
    if (given.system, given.mode) != ("pure_python_rnn", "train"):
        raise ValueError(
            f"the loop trains pure_python_rnn only, not {given.system!r} in mode {given.mode!r}"
        )
    return Steps(given.parameters, given.batches, given.learning_rate)
