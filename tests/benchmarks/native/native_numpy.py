"""Lesson 6 by hand in numpy: time-major, derivatives written out, every buffer made once.

The input layer of characters is a table, and its gradient a sum over segments; each weight
gradient is one product over all time steps; activations and updates work in place. This is what
the numpy backend is measured against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from contract import Given
from numpy_activations import hard_sigmoid, relu, sigmoid, tanh
from numpy_cells import Gru, Lstm, Rnn, Unrolled
from numpy_gru_after import GruAfter
from numpy_parts import (
    Adam,
    Array,
    Arrays,
    Flat,
    Floats,
    Head,
    Indices,
    NormalisedIndices,
    SegmentSum,
    Sgd,
    column_sums,
)

SUMMED = ("theano_rnn", "pure_python_rnn", "theano_gru", "theano_gru_combined")
LAST = ("three_char", "first_rnn", "simple_rnn")


class Positions:
    """The input layer of unrolled models: a table for each position, relu(table @ W + b)."""

    def __init__(self, flat: Flat, time: int, batch: int) -> None:
        self.flat = flat
        rows, units = flat.value["table"].shape[1], flat.value["W"].shape[1]
        dtype = flat.all.dtype
        self.product = np.empty((time, rows, units), dtype)
        self._gradient = np.empty_like(self.product)
        self._step = np.empty((batch, units), dtype)
        self._sum = SegmentSum(batch, rows, units, dtype)
        self._classes = np.arange(rows)[:, None]
        self.zero: Array | None = None

    def start(self, batch: Arrays, training: bool) -> None:
        """Take a batch: ``x`` [time, batch], and ``zero`` where there is a first state."""
        self.indices, self.zero = batch["x"], batch.get("zero")
        np.matmul(self.flat.value["table"], self.flat.value["W"], out=self.product)
        self.product += self.flat.value["b"]
        relu(self.product, self.product)

    def first(self) -> Array | None:
        """The state from before the first position."""
        if self.zero is None:
            return None
        self._first = self.zero @ self.flat.value["W"] + self.flat.value["b"]
        relu(self._first, self._first)
        return self._first

    def step(self, t: int) -> Array:
        """[batch, units] of one position."""
        return np.take(self.product[t], self.indices[t], axis=0, out=self._step, mode="clip")

    def backward(self, gradients: Array, first: Array | None) -> None:
        """From the gradients [time, batch, units] of all positions, and of the first state."""
        for t, g in enumerate(gradients):
            self._position(g, self.indices[t], self._gradient[t])
        self._gradient *= np.greater(self.product, 0)
        value, gradient = self.flat.value, self.flat.gradient
        units = self._gradient.shape[-1]
        g, table = self._gradient.reshape(-1, units), value["table"].reshape(-1, len(value["W"]))
        column_sums(g, gradient["b"])
        np.matmul(table.T, g, out=gradient["W"])
        np.matmul(g, value["W"].T, out=gradient["table"].reshape(table.shape))
        if self.zero is not None and first is not None:
            first *= np.greater(self._first, 0)
            gradient["b"] += first.sum(axis=0)
            gradient["W"] += self.zero.T @ first

    def _position(self, g: Array, indices: Array, out: Array) -> None:
        """Sum the rows of one position by character."""
        if len(g) < 4 * len(out):
            # Few rows a character: one small product beats a call for every character.
            np.matmul(np.equal(self._classes, indices).astype(g.dtype), g, out=out)
        else:
            self._sum(g, indices, out)


class Steps:
    """Steps of one model. They are done when ``start`` returns."""

    def __init__(self, system: str, mode: str, model: Any, head: Head, optimizer: Any) -> None:
        self.system, self.mode, self.model = system, mode, model
        self.head, self.optimizer = head, optimizer
        self.carried: dict[str, Array] = {}

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Lay other batches out, time first."""
        self.batches = [time_major(batch) for batch in batches]

    def start(self, index: int) -> Array:
        """Run a step on batch ``index`` modulo their number: the loss, or probabilities."""
        batch = self.batches[index % len(self.batches)]
        model, training = self.model, self.mode == "train"
        model.source.start(batch, training)
        h = model.source.first() if isinstance(model, Unrolled) else batch.get("h0")
        model.forward(h, self.carried)
        states = model.states[-1:] if self.system in LAST else model.states[1:]
        if not training:
            found = self.head.predict(states)
            return found[:, 0] if self.system in LAST else found
        loss, gradient = self.head.train(states.reshape(-1, states.shape[-1]), batch["target"])
        outside: list[Array | None] = [None] * (model.time - len(states))
        model.backward([*outside, *gradient.reshape(states.shape)])
        self.optimizer.step()
        return loss

    def finish(self, handle: Array) -> dict[str, Array]:
        """The loss, or the outputs by name."""
        if self.mode == "train":
            return {"loss": np.asarray(handle)}
        if self.system == "sequence_unrolled":
            return {f"output.next_{n + 1}": handle[:, n] for n in range(handle.shape[1])}
        return {"output.next_char" if self.system in LAST else "output.next_chars": handle}


def time_major(batch: Mapping[str, Arrays]) -> dict[str, Array]:
    """``x`` and ``target`` over [time, batch]; float targets as [vocab, time * batch].

    Float inputs get a last column of ones.
    """
    inputs, targets = dict(batch["inputs"]), list(batch["targets"].values())
    found = {name: inputs[name] for name in ("h0", "zero") if name in inputs}
    if "chars" in inputs:
        found["x"] = np.ascontiguousarray(inputs["chars"].swapaxes(0, 1))
        if found["x"].ndim == 3:
            ones = np.ones_like(found["x"][..., :1])
            found["x"] = np.concatenate([found["x"], ones], axis=-1)
    else:
        found["x"] = np.stack([a for n, a in inputs.items() if n != "zero"])
    if len(targets) > 1:
        found["target"] = np.stack(targets).ravel()
    elif targets[0].ndim == 3:
        found["target"] = np.ascontiguousarray(targets[0].transpose(2, 1, 0)).reshape(
            targets[0].shape[2], -1
        )
    else:
        found["target"] = targets[0].T.ravel()
    return found


def packed(p: Arrays) -> dict[str, Array]:
    """A spec's parameters in the layout of the loops, gates side by side."""
    found = {new: p[old] for old, new in RENAMED.items() if old in p}
    tables = [array for name, array in p.items() if name.startswith("embed_")]
    if tables:
        found["table"] = np.stack(tables)
    for layer, gates in (("lstm", "ifog"), ("gru", "zrn")):
        for matrix in "WUbc":
            if f"{layer}.{matrix}_{gates[0]}" in p:
                sides = [p[f"{layer}.{matrix}_{gate}"] for gate in gates]
                found[matrix] = np.concatenate(sides, axis=-1)
    if "gru.K_z" in p:
        units = len(p["gru.b_z"])
        stacked = np.concatenate([p[f"gru.K_{gate}"] for gate in "zrn"], axis=1)
        found["U"], found["W"] = stacked[:units], stacked[units:]
    if "gru.b_z" in p and "gru.c_z" not in p:
        joined = found.pop("U")
        found["U_zr"], found["U_n"] = joined[:, : 2 * len(joined)], joined[:, 2 * len(joined) :]
    return found


RENAMED: Mapping[str, str] = {
    "embed.table": "table",
    "norm.gamma": "gamma",
    "norm.beta": "beta",
    "rnn.W": "W",
    "rnn.U": "U",
    "rnn.b": "b",
    "rnn.c": "c",
    "dense_in.W": "W",
    "dense_in.b": "b",
    "dense_hidden.W": "U",
    "dense_hidden.b": "c",
    "dense_out.W": "out.W",
    "dense_out.b": "out.b",
    "output.W": "out.W",
    "output.b": "out.b",
    "out.W": "out.W",
    "out.b": "out.b",
}

CELLS: Mapping[str, Any] = {
    "three_char": partial(Unrolled, act=tanh),
    "first_rnn": partial(Unrolled, act=relu),
    "sequence_unrolled": partial(Unrolled, act=relu),
    "stateful_lstm": partial(Lstm, gate=hard_sigmoid),
    "sigmoid_lstm": partial(Lstm, gate=sigmoid),
    "index_gru": GruAfter,
    "keras_gru": partial(Gru, gate=hard_sigmoid, act=relu),
    "theano_gru": partial(Gru, gate=sigmoid, act=sigmoid),
    "theano_gru_combined": partial(Gru, gate=sigmoid, act=sigmoid),
}


def make(given: Given) -> Steps:
    """Steps of a system in mode ``train`` or ``forward``, from the given parameters and state."""
    flat = Flat(packed(given.parameters))
    x = time_major(given.batches[0])["x"]
    time, batch = x.shape[:2]
    if given.statistics:
        source: Any = NormalisedIndices(flat, time, batch, given.statistics)
    elif flat.value.get("table", x).ndim == 3:
        source = (Positions if "table" in flat.value else Floats)(flat, time, batch)
    else:
        source = Indices(flat, time, batch)
    hidden, _ = flat.value["out.W"].shape
    model = CELLS.get(given.system, Rnn)(flat, source, time, batch, hidden)
    rows = batch if given.system in LAST else time * batch
    # sequence_unrolled adds eight means up.
    counted = batch if len(given.batches[0]["targets"]) > 1 else rows
    scale = 1.0 if given.system in SUMMED else 1.0 / counted
    update = Sgd(flat, given.learning_rate)
    if given.optimizer["optimizer"] != "sgd":
        update = Adam(flat, given.learning_rate, given.optimizer)
    steps = Steps(given.system, given.mode, model, Head(flat, rows, scale), update)
    steps.carried = {name: array.copy() for name, array in given.state.items()}
    steps.feed(given.batches)
    return steps
