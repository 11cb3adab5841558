"""Models of specs/models in numpy, with their derivative by hand: mlp, vae and gcn.

numpy has no layers; the others are not worth writing down without any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from contract import Given
from numpy_parts import Adam, Array, Arrays, Flat, Head, SegmentSum, column_sums
from scipy.special import erf

# The learning rate of mlp: a warm-up and half a cosine, as its spec says; and the most that its
# gradient may be long.
FIRST, LAST, LONGEST = 50, 5000, 1.0


class CorrectedAdam(Adam):
    """Adam with epsilon inside of the bias correction."""

    def __init__(self, flat: Flat, learning_rate: float, numbers: Mapping[str, Any]) -> None:
        super().__init__(flat, learning_rate, numbers)
        self.own = numbers["epsilon"]

    def step(self) -> None:
        """Move the parameters along the gradients."""
        steps = self.steps + 1
        self.epsilon = self.own * ((1 - self.beta_2**steps) / (1 - self.beta_2)) ** 0.5
        super().step()


class ScheduledAdamW(CorrectedAdam):
    """With a decay, a schedule and a gradient that is not too long: the optimizer of mlp."""

    def __init__(self, flat: Flat, learning_rate: float, numbers: Mapping[str, Any]) -> None:
        super().__init__(flat, learning_rate, numbers)
        self.most, self.decay = learning_rate, numbers["weight_decay"]

    def step(self) -> None:
        """Move the parameters along the gradients."""
        number = self.steps + 1
        rest = min(1.0, max(0.0, (number - FIRST) / (LAST - FIRST)))
        factor = min(1.0, number / FIRST) * (0.5 + 0.5 * np.cos(np.pi * rest))
        self.learning_rate = self.most * float(factor)
        g = self.flat.all_gradients
        length = float(np.dot(g, g)) ** 0.5
        if length > LONGEST:
            g *= LONGEST / length
        self.flat.all *= 1 - self.learning_rate * self.decay
        super().step()


class Dense:
    """x @ W + b over rows, and back."""

    def __init__(self, flat: Flat, name: str) -> None:
        self.W, self.b = (flat.value[f"{name}.{kind}"] for kind in "Wb")
        self.W_gradient, self.b_gradient = (flat.gradient[f"{name}.{kind}"] for kind in "Wb")

    def __call__(self, x: Array) -> Array:
        self.x = x
        y = x @ self.W
        y += self.b
        return y

    def backward(self, g: Array) -> Array:
        """The gradient for the rows that went in."""
        self.own_backward(g)
        return g @ self.W.T

    def own_backward(self, g: Array) -> None:
        """The gradients of the parameters alone."""
        np.matmul(self.x.T, g, out=self.W_gradient)
        column_sums(g, self.b_gradient)


class Mlp:
    """The next character from embeddings side by side."""

    output = "next_char"

    def __init__(self, flat: Flat, batch: Arrays) -> None:
        self.flat = flat
        count = sum(name.startswith("hidden_layers.") for name in flat.value) // 2
        names = ["first", *(f"hidden_layers.{n}" for n in range(count))]
        self.layers = [Dense(flat, name) for name in names]
        rows, chars = batch["chars"].shape
        self.head = Head(flat, rows, 1 / rows)
        table = flat.value["embed.table"]
        self.sum = SegmentSum(rows * chars, *table.shape, table.dtype)

    def _hidden(self, chars: Array) -> tuple[Array, list[Array]]:
        x = self.flat.value["embed.table"][chars].reshape(len(chars), -1)
        slopes = []
        for layer in self.layers:
            z = layer(x)
            below = erf(z * 0.5**0.5)  # twice the probability that a normal number is below z, -1
            below += 1
            below *= 0.5
            x = z * below
            slopes.append((z, below))
        return x, slopes

    def train(self, inputs: Arrays, targets: Arrays) -> Any:
        """The loss, with the gradients of all parameters."""
        x, slopes = self._hidden(inputs["chars"])
        loss, g = self.head.train(x, targets["target"])
        for layer, (z, below) in zip(self.layers[::-1], slopes[::-1], strict=True):
            density = np.exp(-0.5 * z * z)
            density *= z * (2 * np.pi) ** -0.5
            density += below
            g = layer.backward(g * density)
        table = self.flat.gradient["embed.table"]
        self.sum(g.reshape(-1, table.shape[1]), inputs["chars"].ravel(), table)
        return loss

    def predict(self, inputs: Arrays) -> Array:
        """Probabilities."""
        return self.head.predict(self._hidden(inputs["chars"])[0][None])[:, 0]


class Vae:
    """An auto-encoder whose code is drawn."""

    output = "image"

    def __init__(self, flat: Flat, batch: Arrays) -> None:
        self.encoder, self.center, self.log_variance, self.decoder, self.out = (
            Dense(flat, n) for n in ("encoder", "center", "log_variance", "decoder", "out")
        )

    def train(self, inputs: Arrays, targets: Arrays) -> Any:
        """The loss, with the gradients of all parameters."""
        x, unit = inputs["x"], inputs["sample.unit"]
        h = np.tanh(self.encoder(x))
        mu, spread = self.center(h), self.log_variance(h)
        deviation = np.exp(0.5 * spread)
        drawn = deviation * unit
        d = np.tanh(self.decoder(mu + drawn))
        logits = self.out(d)
        share, variance = 1 / len(x), deviation * deviation
        # softplus(z) = max(z, 0) + log(1 + exp(-|z|))
        small = np.exp(-np.abs(logits))
        softplus = np.maximum(logits, 0) + np.log1p(small)
        rebuilt = np.sum(softplus) - np.vdot(x, logits)
        divergence = 0.5 * (np.vdot(mu, mu) + np.sum(variance - spread) - spread.size)
        g = np.where(logits >= 0, 1, small) / (1 + small)
        g -= x
        g *= share
        g = self.out.backward(g)
        g *= 1 - d * d
        g = self.decoder.backward(g)
        of_spread = 0.5 * (g * drawn + share * (variance - 1))
        g_h = self.center.backward(g + share * mu) + self.log_variance.backward(of_spread)
        g_h *= 1 - h * h
        self.encoder.own_backward(g_h)
        return (rebuilt + divergence) * share

    def predict(self, inputs: Arrays) -> Array:
        """Images."""
        z = self.center(np.tanh(self.encoder(inputs["x"])))
        return 1 / (1 + np.exp(-self.out(np.tanh(self.decoder(z)))))


class Gcn:
    """Two graph convolutions; the edges of a batch as one matrix, as there are few nodes."""

    output = "classes_of_nodes"

    def __init__(self, flat: Flat, batch: Arrays) -> None:
        self.flat, self.shape = flat, batch["x"].shape
        self.dtype = flat.all.dtype

    def _near(self, inputs: Arrays) -> Array:
        """[nodes, nodes]: what a node takes from each other, by the roots of both degrees."""
        nodes = self.shape[1]
        pairs = inputs["receiver"] * nodes + inputs["sender"]
        near = np.bincount(pairs, minlength=nodes * nodes).reshape(nodes, nodes)
        near = near.astype(self.dtype) + np.eye(nodes, dtype=self.dtype)
        root = np.sqrt(near.sum(1))
        return near / (root[:, None] * root)

    def train(self, inputs: Arrays, targets: Arrays) -> Any:
        """The loss, with the gradients of all parameters."""
        value, gradient = self.flat.value, self.flat.gradient
        near, h, logits = self._forward(inputs)
        batch, nodes, classes = logits.shape
        z = logits.reshape(-1, classes)
        z -= z.max(1, keepdims=True)
        rows, target = np.arange(len(z)), targets["label"].ravel()
        right = z[rows, target].sum()
        e = np.exp(z)
        total = e.sum(1, keepdims=True)
        loss = (np.log(total).sum() - right) / len(z)
        e /= total
        e[rows, target] -= 1
        e /= len(z)
        column_sums(e, gradient["second.b"])
        g = near.T @ e.reshape(batch, nodes, classes)
        np.matmul(h.reshape(len(z), -1).T, g.reshape(-1, classes), out=gradient["second.W"])
        g = g @ value["second.W"].T
        g *= h > 0
        column_sums(g.reshape(len(z), -1), gradient["first.b"])
        g = (near.T @ g).reshape(len(z), -1)
        np.matmul(inputs["x"].reshape(len(z), -1).T, g, out=gradient["first.W"])
        return loss

    def _forward(self, inputs: Arrays) -> tuple[Array, Array, Array]:
        value, near = self.flat.value, self._near(inputs)
        h = near @ (inputs["x"] @ value["first.W"])
        h += value["first.b"]
        np.maximum(h, 0, out=h)
        logits = near @ (h @ value["second.W"])
        logits += value["second.b"]
        return near, h, logits

    def predict(self, inputs: Arrays) -> Array:
        """Probabilities."""
        z = self._forward(inputs)[-1]
        z -= z.max(-1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(-1, keepdims=True)
        return z


class Steps:
    """Steps of one model, done when ``start`` returns."""

    def __init__(self, mode: str, model: Any, update: Adam) -> None:
        self.mode, self.model, self.update = mode, model, update

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Other batches of the same shapes."""
        self.batches = [(dict(b["inputs"]), dict(b["targets"])) for b in batches]

    def start(self, index: int) -> dict[str, Array]:
        """A step on batch ``index`` modulo their number."""
        inputs, targets = self.batches[index % len(self.batches)]
        if self.mode == "forward":
            return {f"output.{self.model.output}": self.model.predict(inputs)}
        loss = self.model.train(inputs, targets)
        self.update.step()
        return {"loss": np.asarray(loss)}

    def finish(self, handle: dict[str, Array]) -> dict[str, Array]:
        """The loss, or the outputs by name."""
        return handle


MODELS: Mapping[str, Any] = {"mlp": Mlp, "vae": Vae, "gcn": Gcn}


def make(given: Given) -> Steps:
    """Steps of a model in mode ``train`` or ``forward``, from the given parameters."""
    flat = Flat(given.parameters)
    adam = ScheduledAdamW if given.system == "mlp" else CorrectedAdam
    model = MODELS[given.system](flat, given.batches[0]["inputs"])
    steps = Steps(given.mode, model, adam(flat, given.learning_rate, given.optimizer))
    steps.feed(given.batches)
    return steps
