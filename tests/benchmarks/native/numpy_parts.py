"""What the numpy baselines share: flat parameters, optimizers, input layers and the output layer.

Everything is time-major: rows of a matrix are [time * batch]. Buffers are made once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray
Arrays = Mapping[str, Array]


class Flat:
    """Parameters and gradients by name, as views into two vectors, so that one update does all."""

    def __init__(self, arrays: Arrays) -> None:
        self.all = np.concatenate([array.ravel() for array in arrays.values()])
        self.all_gradients = np.zeros_like(self.all)
        self.value: dict[str, Array] = {}
        self.gradient: dict[str, Array] = {}
        start = 0
        for name, array in arrays.items():
            part = slice(start, start + array.size)
            self.value[name] = self.all[part].reshape(array.shape)
            self.gradient[name] = self.all_gradients[part].reshape(array.shape)
            start += array.size


class Adam:
    """Adam with epsilon outside the bias correction, in ten passes without a temporary array.

    The moments are kept without their factors 1 - beta, which go into the rate and epsilon.
    Gradients are overwritten.
    """

    def __init__(self, flat: Flat, learning_rate: float, numbers: Mapping[str, Any]) -> None:
        self.flat, self.learning_rate = flat, learning_rate
        self.beta_1, self.beta_2 = numbers["beta_1"], numbers["beta_2"]
        self.epsilon = numbers["epsilon"] / (1 - self.beta_2) ** 0.5
        self.m, self.v = np.zeros_like(flat.all), np.zeros_like(flat.all)
        self.steps = 0

    def step(self) -> None:
        """Move the parameters along the gradients."""
        self.steps += 1
        correction = ((1 - self.beta_2**self.steps) / (1 - self.beta_2)) ** 0.5
        rate = self.learning_rate * correction * (1 - self.beta_1) / (1 - self.beta_1**self.steps)
        m, v, g = self.m, self.v, self.flat.all_gradients
        m *= self.beta_1
        m += g
        v *= self.beta_2
        g *= g
        v += g
        np.sqrt(v, out=g)
        g += self.epsilon
        np.divide(m, g, out=g)
        g *= rate
        self.flat.all -= g


class Sgd:
    """Gradient descent; gradients are overwritten."""

    def __init__(self, flat: Flat, learning_rate: float) -> None:
        self.flat, self.learning_rate = flat, learning_rate

    def step(self) -> None:
        """Move the parameters along the gradients."""
        self.flat.all_gradients *= self.learning_rate
        self.flat.all -= self.flat.all_gradients


def column_sums(x: Array, out: Array) -> None:
    """The sum of the rows of x, by BLAS, which is faster than a reduction over the first axis."""
    np.matmul(x.T, np.ones(len(x), x.dtype), out=out)


class SegmentSum:
    """Sums of the rows that have the same index: the gradient of a gather."""

    def __init__(self, count: int, rows: int, units: int, dtype: Any) -> None:
        self.rows = rows
        self._sorted = np.empty((count, units), dtype)

    def __call__(self, x: Array, indices: Array, out: Array) -> Array:
        """``out[r]`` becomes the sum of ``x[i]`` over all i with ``indices[i] == r``."""
        # Short integers are sorted by radix, ten times faster than long ones.
        order = np.argsort(indices.astype(np.uint16), kind="stable")
        np.take(x, order, axis=0, out=self._sorted, mode="clip")
        stops = np.cumsum(np.bincount(indices, minlength=self.rows)).tolist()
        start = 0
        for row, stop in enumerate(stops):
            # One reduction a segment is ten times faster than reduceat over the first axis.
            np.add.reduce(self._sorted[start:stop], axis=0, out=out[row])
            start = stop
        return out


class Indices:
    """The input layer of characters: rows gathered from the table embedding @ W + b."""

    def __init__(self, flat: Flat, time: int, batch: int) -> None:
        self.flat = flat
        rows, units = len(flat.value["table"]), flat.value["W"].shape[1]
        dtype = flat.all.dtype
        self.product = np.empty((rows, units), dtype)
        self._step = np.empty((batch, units), dtype)
        self._sum = SegmentSum(time * batch, rows, units, dtype)
        self._gradient = np.empty_like(self.product)

    def start(self, batch: Arrays, training: bool) -> None:
        """Take a batch: ``x`` [time, batch]."""
        self.indices = batch["x"]
        np.matmul(self.features(training), self.flat.value["W"], out=self.product)
        self.product += self.flat.value["b"]

    def step(self, t: int) -> Array:
        """[batch, units] of one time step."""
        return np.take(self.product, self.indices[t], axis=0, out=self._step, mode="clip")

    def backward(self, gradients: Array) -> None:
        """From the gradients [time * batch, units] of all steps."""
        g = self._sum(gradients, self.indices.ravel(), self._gradient)
        column_sums(g, self.flat.gradient["b"])
        np.matmul(self.rows_used.T, g, out=self.flat.gradient["W"])
        self.features_backward(g @ self.flat.value["W"].T)

    def features(self, training: bool) -> Array:
        """The rows that characters stand for."""
        self.rows_used = self.flat.value["table"]
        return self.rows_used

    def features_backward(self, gradients: Array) -> None:
        """From the gradients of :meth:`features`."""
        self.flat.gradient["table"][...] = gradients


class NormalisedIndices(Indices):
    """With batch normalisation, of the table: rows count as often as the batch has them."""

    def __init__(self, flat: Flat, time: int, batch: int, statistics: Arrays) -> None:
        super().__init__(flat, time, batch)
        self.mean = statistics["norm.moving_mean"].copy()
        self.variance = statistics["norm.moving_variance"].copy()

    def features(self, training: bool) -> Array:
        table, value = self.flat.value["table"], self.flat.value
        mean, variance = self.mean, self.variance
        if training:
            counts = np.bincount(self.indices.ravel(), minlength=len(table)).astype(table.dtype)
            self.share = counts / table.dtype.type(self.indices.size)
            mean = self.share @ table
            variance = self.share @ (table - mean) ** 2
            self.mean += 0.01 * (mean - self.mean)
            self.variance += 0.01 * (variance - self.variance)
        self.scale = 1 / np.sqrt(variance + 1e-3)
        self.normal = (table - mean) * self.scale
        self.rows_used = value["gamma"] * self.normal + value["beta"]
        return self.rows_used

    def features_backward(self, gradients: Array) -> None:
        gradient = self.flat.gradient
        gradient["beta"][...] = gradients.sum(axis=0)
        gradient["gamma"][...] = (gradients * self.normal).sum(axis=0)
        # Gradients are sums over a row's places in the batch, so its mean goes in as often.
        through = gradient["beta"] + self.normal * gradient["gamma"]
        inner = gradients - self.share[:, None] * through
        np.multiply(inner, self.flat.value["gamma"] * self.scale, out=gradient["table"])


class Floats:
    """The input layer of one-hot characters: one product over all time steps.

    Inputs end with a column of ones, so that the product adds the bias too.
    """

    def __init__(self, flat: Flat, time: int, batch: int) -> None:
        self.flat = flat
        features, units = flat.value["W"].shape
        self._product = np.empty((time, batch, units), flat.all.dtype)
        self._weights = np.zeros((features + 1, units), flat.all.dtype)

    def start(self, batch: Arrays, training: bool) -> None:
        """Take a batch: ``x`` [time, batch, features + 1]."""
        self.x = batch["x"].reshape(-1, batch["x"].shape[-1])
        value, weights = self.flat.value, self._weights
        weights[:-1] = value["W"]
        if "b" in value:
            weights[-1] = value["b"] + value["c"] if "c" in value else value["b"]
        np.matmul(self.x, weights, out=self._product.reshape(len(self.x), -1))

    def step(self, t: int) -> Array:
        """[batch, units] of one time step."""
        return self._product[t]

    def backward(self, gradients: Array) -> None:
        """From the gradients [time * batch, units] of all steps."""
        # The weights are copied anew at the next start, so their buffer takes the gradient.
        np.matmul(self.x.T, gradients, out=self._weights)
        self.flat.gradient["W"][...] = self._weights[:-1]
        for name in ("b", "c"):
            if name in self.flat.gradient:
                self.flat.gradient[name][...] = self._weights[-1]
        self._weights[-1] = 0


class Head:
    """The output layer and softmax, over rows [time * batch, hidden].

    Training keeps classes first, [vocab, rows]: sums and maxima over classes are then sums and
    maxima of whole rows. Probabilities go out as [batch, time, vocab].
    """

    def __init__(self, flat: Flat, rows: int, scale: float) -> None:
        self.flat, self.scale = flat, scale
        hidden, vocab = flat.value["out.W"].shape
        dtype = flat.all.dtype
        self._logits = np.empty((vocab, rows), dtype)
        self._spare = np.empty((vocab, rows), dtype)
        self._rows = np.arange(rows)
        self._gradient = np.empty((rows, hidden), dtype)

    def train(self, states: Array, target: Array) -> tuple[Any, Array]:
        """The loss, and its gradient for the states."""
        value, gradient, z = self.flat.value, self.flat.gradient, self._logits
        np.matmul(value["out.W"].T, states.T, out=z)
        if "out.b" in value:
            z += value["out.b"][:, None]
        z -= np.maximum.reduce(z, axis=0)
        e = np.exp(z, out=self._spare)
        total = np.add.reduce(e, axis=0)
        # Sums, not averages: the loss of the specs is scaled afterwards.
        if target.ndim == 1:
            loss = np.log(total).sum() - z[target, self._rows].sum()
            e *= self.scale / total
            e[target, self._rows] -= self.scale
        else:
            weight = np.add.reduce(target, axis=0)
            loss = np.dot(weight, np.log(total)) - np.vdot(target, z)
            e *= weight / total
            e -= target
            if self.scale != 1:
                e *= self.scale
        np.matmul(states.T, e.T, out=gradient["out.W"])
        if "out.b" in gradient:
            np.matmul(e, np.ones(len(states), e.dtype), out=gradient["out.b"])
        return loss * self.scale, np.matmul(e.T, value["out.W"].T, out=self._gradient)

    def predict(self, states: Array) -> Array:
        """Probabilities [batch, time, vocab] of states [time, batch, hidden], a new array."""
        value = self.flat.value
        time, batch, hidden = states.shape
        z = self._logits.reshape(time * batch, -1)
        np.matmul(states.reshape(-1, hidden), value["out.W"], out=z)
        if "out.b" in value:
            z += value["out.b"]
        z -= np.maximum.reduce(z, axis=1, keepdims=True)
        np.exp(z, out=z)
        total = z @ np.ones((z.shape[1], 1), z.dtype)
        found = np.empty((batch, time, z.shape[1]), z.dtype)
        np.divide(*(a.reshape(time, batch, -1) for a in (z, total)), out=found.transpose(1, 0, 2))
        return found
