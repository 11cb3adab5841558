"""Layers for the torch baselines: torch's own with given parameters, and loops over cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

Arrays = Mapping[str, np.ndarray]
State = tuple[Tensor, ...]
Function = Callable[[Tensor], Tensor]


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


def gates(parameters: Arrays, layer: str, kinds: Sequence[str], order: str) -> list[np.ndarray]:
    """The arrays of each kind with their gates side by side, [..., gates * units]."""
    return [
        np.concatenate([parameters[f"{layer}.{kind}_{gate}"] for gate in order], axis=-1)
        for kind in kinds
    ]


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


class LoopRnn(nn.Module):
    """What :class:`Rnn` computes, as a loop."""

    def __init__(self, parameters: Arrays) -> None:
        super().__init__()
        self.input = linear(parameters["rnn.W"], parameters.get("rnn.b"))
        self.hidden = linear(parameters["rnn.U"], parameters.get("rnn.c"))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h = state[0] if state else x.new_zeros(len(x), self.hidden.in_features)
        states = []
        for x_t in self.input(x).unbind(1):
            h = torch.relu(x_t + self.hidden(h))
            states.append(h)
        return torch.stack(states, 1), (h,)


class FusedLstm(nn.Module):
    """nn.LSTM, whose gates are sigmoids."""

    def __init__(self, parameters: Arrays) -> None:
        super().__init__()
        kernel, recurrent, bias = gates(parameters, "lstm", "WUb", "ifgo")
        self.lstm = nn.LSTM(len(kernel), len(recurrent), batch_first=True)
        zeros = np.zeros_like(bias)
        fill(self.lstm, weight_ih_l0=kernel.T, weight_hh_l0=recurrent.T)
        fill(self.lstm, bias_ih_l0=bias, bias_hh_l0=zeros)
        self.lstm.bias_hh_l0.requires_grad_(False)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, c = state
        states, (h, c) = self.lstm(x, (h[None], c[None]))
        return states, (h[0], c[0])


class FusedGru(nn.Module):
    """nn.GRU, which resets after the recurrent product."""

    def __init__(self, parameters: Arrays) -> None:
        super().__init__()
        kernel, recurrent, bias, second = gates(parameters, "gru", "WUbc", "rzn")
        self.gru = nn.GRU(len(kernel), len(recurrent), batch_first=True)
        fill(self.gru, weight_ih_l0=kernel.T, weight_hh_l0=recurrent.T)
        fill(self.gru, bias_ih_l0=bias, bias_hh_l0=second)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        states, last = self.gru(x)
        return states, (last[0],)


class Lstm(nn.Module):
    """An LSTM cell by cell, with any function for its gates."""

    def __init__(self, parameters: Arrays, gate: Function) -> None:
        super().__init__()
        self.gate = gate
        kernel, recurrent, bias = gates(parameters, "lstm", "WUb", "ifog")
        self.input, self.hidden = linear(kernel, bias), linear(recurrent)
        self.units = len(recurrent)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, c = state
        states = []
        for x_t in self.input(x).unbind(1):
            gates = x_t + self.hidden(h)
            i, f, o = self.gate(gates[:, : 3 * self.units]).chunk(3, 1)
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
            kernel, recurrent = gates(parameters, "gru", "WU", "zrn")
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


class LoopGru(nn.Module):
    """What :class:`FusedGru` computes, as a loop."""

    def __init__(self, parameters: Arrays) -> None:
        super().__init__()
        kernel, recurrent, bias, second = gates(parameters, "gru", "WUbc", "zrn")
        self.input, self.hidden = linear(kernel, bias), linear(recurrent, second)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        units = self.hidden.in_features
        h, states = x.new_zeros(len(x), units), []
        for x_t in self.input(x).unbind(1):
            x_gates, x_n = x_t.split((2 * units, units), 1)
            h_gates, h_n = self.hidden(h).split((2 * units, units), 1)
            z, r = torch.sigmoid(x_gates + h_gates).chunk(2, 1)
            n = torch.tanh(x_n + r * h_n)
            h = n + z * (h - n)
            states.append(h)
        return torch.stack(states, 1), (h,)
