"""Lesson 6 as a good user of PyTorch writes it: nn modules, autograd, a fused optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Arrays = Mapping[str, np.ndarray]
Tensors = dict[str, Tensor]
State = tuple[Tensor, ...]
Function = Callable[[Tensor], Tensor]

SUMMED = ("theano_rnn", "pure_python_rnn", "theano_gru", "theano_gru_combined")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hard_sigmoid(x: Tensor) -> Tensor:
    """The gate of Keras 2, of slope 1/5; F.hardsigmoid has 1/6."""
    return torch.clamp(0.2 * x + 0.5, 0, 1)


def linear(weight: np.ndarray, bias: np.ndarray | None = None) -> nn.Linear:
    """A layer of x @ weight [features, units] + bias."""
    layer = nn.Linear(*weight.shape, bias=bias is not None)
    fill(layer, weight=weight.T, **({} if bias is None else {"bias": bias}))
    return layer


@torch.no_grad()
def fill(layer: nn.Module, **arrays: np.ndarray) -> None:
    """Set parameters and buffers, at the arrays' dtype."""
    layer.to(torch.from_numpy(np.zeros(0, next(iter(arrays.values())).dtype)).dtype)
    for name, array in arrays.items():
        getattr(layer, name).copy_(torch.tensor(array))


class Rnn(nn.Module):
    """[batch, time, features] and (h,) to all states and (h,)."""

    def __init__(self, parameters: Arrays) -> None:
        super().__init__()
        weight, bias = parameters["rnn.W"], parameters.get("rnn.b")
        features, self.units = weight.shape
        self.rnn = nn.RNN(
            features, self.units, nonlinearity="relu", bias=bias is not None, batch_first=True
        )
        fill(self.rnn, weight_ih_l0=weight.T, weight_hh_l0=parameters["rnn.U"].T)
        if bias is not None:
            second = parameters.get("rnn.c", np.zeros_like(bias))
            fill(self.rnn, bias_ih_l0=bias, bias_hh_l0=second)
            # Two trained biases would move twice as far as the one that the model has.
            self.rnn.bias_hh_l0.requires_grad_("rnn.c" in parameters)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        states, last = self.rnn(x, state[0][None] if state else None)
        return states, (last[0],)


class Lstm(nn.Module):
    """nn.LSTM with hard sigmoids for gates, which nn.LSTM does not offer."""

    def __init__(self, parameters: Arrays) -> None:
        super().__init__()
        kernel, recurrent, bias = (
            np.concatenate([parameters[f"lstm.{name}_{gate}"] for gate in "ifog"], axis=-1)
            for name in "WUb"
        )
        self.input, self.hidden = linear(kernel, bias), linear(recurrent)
        self.units = len(recurrent)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, c = state
        states = []
        for x_t in self.input(x).unbind(1):
            gates = x_t + self.hidden(h)
            i, f, o = hard_sigmoid(gates[:, : 3 * self.units]).chunk(3, 1)
            c = f * c + i * torch.tanh(gates[:, 3 * self.units :])
            h = o * torch.tanh(c)
            states.append(h)
        return torch.stack(states, 1), (h, c)


class Gru(nn.Module):
    """A GRU that resets before the recurrent product; nn.GRU resets after it."""

    def __init__(self, parameters: Arrays, activation: Function, gate: Function) -> None:
        super().__init__()
        self.activation, self.gate = activation, gate
        bias = np.concatenate([parameters[f"gru.b_{gate}"] for gate in "zrn"])
        self.units = units = len(bias) // 3
        if "gru.K_z" in parameters:
            stacked = np.concatenate([parameters[f"gru.K_{gate}"] for gate in "zrn"], axis=1)
            recurrent, kernel = stacked[:units], stacked[units:]
        else:
            kernel, recurrent = (
                np.concatenate([parameters[f"gru.{name}_{gate}"] for gate in "zrn"], axis=1)
                for name in "WU"
            )
        self.input = linear(kernel, bias)
        self.gates = linear(recurrent[:, : 2 * units])
        self.candidate = linear(recurrent[:, 2 * units :])

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h = state[0] if state else x.new_zeros(len(x), self.units)
        states = []
        for x_t in self.input(x).unbind(1):
            x_gates, x_n = x_t.split((2 * self.units, self.units), 1)
            z, r = self.gate(x_gates + self.gates(h)).chunk(2, 1)
            n = self.activation(x_n + self.candidate(h * r))
            h = n + z * (h - n)
            states.append(h)
        return torch.stack(states, 1), (h,)


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

    def __init__(self, parameters: Arrays, activation: Function, every: bool) -> None:
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


def build(system: str, parameters: Arrays, statistics: Arrays) -> nn.Module:
    """The model of a system with these parameters."""
    if "embed_1.table" in parameters:
        activation = torch.tanh if system == "three_char" else torch.relu
        return Unrolled(parameters, activation, every=system == "sequence_unrolled")
    if "lstm.U_i" in parameters:
        layer: nn.Module = Lstm(parameters)
    elif "rnn.U" in parameters:
        layer = Rnn(parameters)
    elif system == "keras_gru":
        layer = Gru(parameters, torch.relu, hard_sigmoid)
    else:
        layer = Gru(parameters, torch.sigmoid, torch.sigmoid)
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
                logits, state = self.model(inputs, self.state)
                self._carry(state)
                return torch.softmax(logits, -1)
        self.optimizer.zero_grad(set_to_none=True)
        logits, state = self.model(inputs, self.state)
        self._carry(state)
        loss = self._loss(logits, target)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

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


def make(
    system: str,
    mode: str,
    parameters: Arrays,
    statistics: Arrays,
    state: Arrays,
    batches: Sequence[Mapping[str, Arrays]],
    learning_rate: float,
    optimizer: Mapping[str, Any],
) -> Steps:
    """Steps of a system in mode ``train`` or ``forward``, from the given parameters and state."""
    model = build(system, parameters, statistics).to(DEVICE).train(mode == "train")
    trained = [p for p in model.parameters() if p.requires_grad]
    if optimizer["optimizer"] == "sgd":
        chosen: torch.optim.Optimizer = torch.optim.SGD(trained, learning_rate, fused=True)
    else:
        betas = (optimizer["beta_1"], optimizer["beta_2"])
        chosen = torch.optim.Adam(trained, learning_rate, betas, optimizer["epsilon"], fused=True)
    return Steps(system, mode, model, chosen, tuple(place(state).values()), batches)
