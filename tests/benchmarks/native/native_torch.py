"""Lesson 6 as a good user of PyTorch writes it: nn modules, autograd, a fused optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from contract import Given
from torch import Tensor, nn
from torch_layers import (
    Arrays,
    FusedGru,
    FusedLstm,
    Gru,
    LoopGru,
    LoopRnn,
    Lstm,
    Rnn,
    State,
    fill,
    hard_sigmoid,
    linear,
)

Tensors = dict[str, Tensor]

SUMMED = ("theano_rnn", "pure_python_rnn", "theano_gru", "theano_gru_combined")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Recurrent(nn.Module):
    """A recurrent layer between an optional embedding and a linear layer."""

    def __init__(
        self, layer: nn.Module, parameters: Arrays, statistics: Arrays, last: bool
    ) -> None:
        super().__init__()
        table = parameters.get("embed.table")
        self.embed = None if table is None else nn.Embedding(*table.shape)
        if self.embed is not None:
            fill(self.embed, weight=table)
        self.norm = None
        if statistics:
            self.norm = nn.BatchNorm1d(table.shape[1], eps=1e-3, momentum=0.01)
            fill(
                self.norm,
                weight=parameters["norm.gamma"],
                bias=parameters["norm.beta"],
                running_mean=statistics["norm.moving_mean"],
                running_var=statistics["norm.moving_variance"],
            )
        self.layer, self.last = layer, last
        self.out = linear(parameters["out.W"], parameters.get("out.b"))

    def forward(self, inputs: Tensors, state: State) -> tuple[Tensor, State]:
        x = inputs["chars"]
        if self.embed is not None:
            x = self.embed(x)
        if self.norm is not None:
            x = self.norm(x.flatten(0, 1)).view_as(x)
        states, state = self.layer(x, state or tuple(inputs[n] for n in inputs if n == "h0"))
        return self.out(states[:, -1] if self.last else states), state


class Unrolled(nn.Module):
    """One embedding for each position, and layers that are shared over them."""

    def __init__(self, parameters: Arrays, activation: Any, every: bool) -> None:
        super().__init__()
        tables = [array for name, array in parameters.items() if name.startswith("embed_")]
        self.embed = nn.ModuleList(nn.Embedding(*table.shape) for table in tables)
        for layer, table in zip(self.embed, tables, strict=True):
            fill(layer, weight=table)
        self.dense_in, self.dense_hidden, self.out = (
            linear(parameters[f"{name}.W"], parameters[f"{name}.b"])
            for name in ("dense_in", "dense_hidden", "output" if every else "dense_out")
        )
        self.activation, self.every = activation, every

    def forward(self, inputs: Tensors, state: State) -> tuple[Tensor, State]:
        h, logits = None, []
        if self.every:
            h = torch.relu(self.dense_in(inputs["zero"]))
        for position, embed in enumerate(self.embed, 1):
            x = torch.relu(self.dense_in(embed(inputs[f"c{position}"])))
            h = x if h is None else x + self.activation(self.dense_hidden(h))
            if self.every:
                logits.append(self.out(h))
        return (torch.stack(logits, 1) if self.every else self.out(h)), state


def recurrent(system: str, parameters: Arrays, loops: bool) -> nn.Module:
    """The recurrent layer of a system: torch's own where it has one, or always a loop of ours."""
    if "rnn.U" in parameters:
        return (LoopRnn if loops else Rnn)(parameters)
    if system == "stateful_lstm":
        return Lstm(parameters, hard_sigmoid)
    if system == "sigmoid_lstm":
        return Lstm(parameters, torch.sigmoid) if loops else FusedLstm(parameters)
    if system == "index_gru":
        return (LoopGru if loops else FusedGru)(parameters)
    if system == "keras_gru":
        return Gru(parameters, torch.relu, hard_sigmoid)
    return Gru(parameters, torch.sigmoid, torch.sigmoid)


def build(system: str, parameters: Arrays, statistics: Arrays, loops: bool) -> nn.Module:
    """The model of a system with these parameters."""
    if "embed_1.table" in parameters:
        activation = torch.tanh if system == "three_char" else torch.relu
        return Unrolled(parameters, activation, every=system == "sequence_unrolled")
    layer = recurrent(system, parameters, loops)
    return Recurrent(layer, parameters, statistics, last=system == "simple_rnn")


class Steps:
    """Steps of one model; ``start`` returns the loss, or the probabilities, without waiting."""

    def __init__(
        self,
        system: str,
        mode: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: State,
        batches: Sequence[Mapping[str, Arrays]],
    ) -> None:
        self.system, self.mode = system, mode
        self.model, self.optimizer, self.state = model, optimizer, state
        self.reduction = "sum" if system in SUMMED else "mean"
        self.feed(batches)

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Put other batches on the device."""
        self.batches = [(place(batch["inputs"]), self._target(batch)) for batch in batches]

    def _target(self, batch: Mapping[str, Arrays]) -> Tensor:
        targets = list(batch["targets"].values())
        joined = torch.tensor(np.stack(targets, 1) if len(targets) > 1 else targets[0])
        return joined.to(DEVICE)

    def start(self, index: int) -> Tensor:
        """Begin a step on batch ``index`` modulo their number."""
        inputs, target = self.batches[index % len(self.batches)]
        if self.mode == "forward":
            with torch.inference_mode():
                found, state = self.predict(inputs, self.state)
                self._carry(state)
                return found
        self.optimizer.zero_grad(set_to_none=True)
        loss, state = self.lose(inputs, self.state, target)
        self._carry(state)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def predict(self, inputs: Tensors, state: State) -> tuple[Tensor, State]:
        """Probabilities and the next state."""
        logits, state = self.model(inputs, state)
        return torch.softmax(logits, -1), state

    def lose(self, inputs: Tensors, state: State, target: Tensor) -> tuple[Tensor, State]:
        """The loss and the next state."""
        logits, state = self.model(inputs, state)
        return self._loss(logits, target), state

    def _carry(self, state: State) -> None:
        if self.state:
            self.state = tuple(tensor.detach() for tensor in state)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.ndim == 3:
            target = target.flatten(0, 1)
            loss = F.cross_entropy(logits.flatten(0, 1), target, reduction=self.reduction)
            # A mean for each of the eight outputs, and their sum.
            return loss * logits.shape[1] if self.system == "sequence_unrolled" else loss
        return F.cross_entropy(logits, target)

    def finish(self, handle: Tensor) -> dict[str, np.ndarray]:
        """Wait for a step: its loss, or its outputs by name."""
        array = handle.cpu().numpy()
        if self.mode == "train":
            return {"loss": array}
        if self.system == "sequence_unrolled":
            return {f"output.next_{n}": array[:, n - 1] for n in range(1, array.shape[1] + 1)}
        return {"output.next_char" if array.ndim == 2 else "output.next_chars": array}


def place(arrays: Arrays) -> Tensors:
    """Arrays as tensors on the device."""
    return {name: torch.tensor(array, device=DEVICE) for name, array in arrays.items()}


def make(given: Given, loops: bool = False) -> Steps:
    """Steps of a system in mode ``train`` or ``forward``, from the given parameters and state.

    With ``loops`` recurrent layers are loops over cells, also where torch has a layer.
    """
    model = build(given.system, given.parameters, given.statistics, loops)
    model = model.to(DEVICE).train(given.mode == "train")
    trained = [p for p in model.parameters() if p.requires_grad]
    rate, optimizer = given.learning_rate, given.optimizer
    if optimizer["optimizer"] == "sgd":
        chosen: torch.optim.Optimizer = torch.optim.SGD(trained, rate, fused=True)
    else:
        betas = (optimizer["beta_1"], optimizer["beta_2"])
        chosen = torch.optim.Adam(trained, rate, betas, optimizer["epsilon"], fused=True)
    state = tuple(place(given.state).values())
    return Steps(given.system, given.mode, model, chosen, state, given.batches)
