"""What torch does where nothing is said: a measurement for each entry of ``specs/defaults``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from harness.extend import Measured, Probes

PROBES = Probes()
BIG = 50.0  # saturates a gate


def _zeroed(layer: Any) -> Any:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer


def _count(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _slope(function: Any, at: float) -> float:
    x = torch.tensor([at], requires_grad=True)
    function(x).sum().backward()
    assert x.grad is not None
    return float(x.grad[0])


@PROBES
def gru_reset() -> Measured:
    layer = _zeroed(nn.GRU(1, 2))
    with torch.no_grad():
        layer.weight_hh_l0[4:] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        layer.bias_hh_l0[1] = -BIG  # the second unit's state is reset
        _, h = layer(torch.zeros(1, 1, 1), torch.tensor([[[1.0, 0.0]]]))
    return "before" if float(h[0, 0, 1]) > 0.1 else "after"


@PROBES
def gru_gates() -> Measured:
    found = []
    for block in range(3):
        layer = _zeroed(nn.GRU(1, 1))
        with torch.no_grad():
            layer.bias_ih_l0[block] = BIG
            _, h = layer(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 3.0))
        found.append({3.0: "z", 1.5: "r", 2.0: "n"}[round(float(h), 3)])
    return ", ".join(found)


@PROBES
def gru_biases() -> Measured:
    return _count(nn.GRU(1, 1))


@PROBES
def lstm_gates() -> Measured:
    found = []
    for block in range(4):
        layer = _zeroed(nn.LSTM(1, 1))
        with torch.no_grad():
            layer.bias_ih_l0[block] = BIG
            zero = torch.zeros(1, 1, 1)
            _, (h, c) = layer(zero, (zero, torch.full((1, 1, 1), 3.0)))
        gate = {3.0: "f", 2.0: "g"}.get(round(float(c), 3))
        found.append(gate or ("o" if float(h) > 0.6 else "i"))
    return ", ".join(found)


@PROBES
def lstm_biases() -> Measured:
    return _count(nn.LSTM(1, 1))


@PROBES
def lstm_forget_bias() -> Measured:
    bias = nn.LSTM(2, 4).bias_ih_l0.detach()[4:8]
    return "drawn" if float(bias.std()) > 0 else float(bias[0])


@PROBES
def rnn_biases() -> Measured:
    return _count(nn.RNN(1, 1))


@PROBES
def gate_activation() -> Measured:
    layer = _zeroed(nn.GRU(1, 1))
    with torch.no_grad():
        layer.bias_ih_l0[1] = 1.0  # the update gate keeps this share of the state
        _, h = layer(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    return float(h)


@PROBES
def recurrent_layout() -> Measured:
    _, h = nn.GRU(3, 4)(torch.zeros(5, 2, 3))
    return "batch first" if h.shape[1] == 5 else "time first"


@PROBES
def recurrent_output() -> Measured:
    out, _ = nn.GRU(3, 4)(torch.zeros(5, 2, 3))
    return "every step" if out.ndim == 3 else "last step"


@PROBES
def masked_steps() -> Measured:
    rows = nn.utils.rnn.pack_padded_sequence(torch.ones(2, 2, 1), torch.tensor([2, 1]), True)
    out, _ = nn.utils.rnn.pad_packed_sequence(nn.LSTM(1, 1, batch_first=True)(rows)[0], True)
    return "zeros" if out[1, 1, 0] == 0 else "the output before"


@PROBES
def recurrent_kernel_initial() -> Measured:
    kernel = nn.GRU(4, 8).weight_hh_l0.detach()
    return "orthogonal" if torch.allclose(kernel.T @ kernel, torch.eye(8), atol=1e-4) else "uniform"


@PROBES
def input_kernel_initial() -> Measured:
    return float(nn.GRU(100, 100).weight_ih_l0.detach().abs().max())


@PROBES
def hard_sigmoid_slope() -> Measured:
    return float(functional.hardsigmoid(torch.ones(1)) - functional.hardsigmoid(torch.zeros(1)))


@PROBES
def hard_sigmoid_gradient() -> Measured:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    functional.hardsigmoid(x).sum().backward()
    assert x.grad is not None
    return "float32" if abs(float(x.grad[0]) * 6 - 1) > 1e-12 else "float64"


@PROBES
def relu_at_zero() -> Measured:
    return _slope(torch.relu, 0.0)


@PROBES
def maximum_at_tie() -> Measured:
    return _slope(lambda x: torch.maximum(x, torch.zeros_like(x)), 0.0)


@PROBES
def clip_at_bound() -> Measured:
    return _slope(lambda x: torch.clamp(x, 0.0, 1.0), 1.0)


@PROBES
def abs_at_zero() -> Measured:
    return _slope(torch.abs, 0.0)


@PROBES
def max_at_tie() -> Measured:
    x = torch.tensor([[1.0, 1.0]], requires_grad=True)
    x.max(1).values.sum().backward()
    assert x.grad is not None
    return float(x.grad[0, 0])


@PROBES
def softmax_axis() -> Measured:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = functional.softmax(torch.zeros(2, 3, 5), dim=None)
    return {0.5: 0, 0.333: 1, 0.2: -1}[round(float(out[0, 0, 0]), 3)]


@PROBES
def gelu_form() -> Measured:
    return "exact" if abs(float(functional.gelu(torch.ones(1))) - 0.841345) < 1e-5 else "tanh"


@PROBES
def leaky_relu_slope() -> Measured:
    return -float(nn.LeakyReLU()(-torch.ones(1)))


@PROBES
def batch_norm_epsilon() -> Measured:
    return nn.BatchNorm1d(1).eps


@PROBES
def batch_norm_momentum() -> Measured:
    layer = nn.BatchNorm1d(1)
    layer(torch.tensor([[0.0], [2.0]]))
    return float(layer.running_mean)  # of a batch whose mean is 1


@PROBES
def batch_norm_variance() -> Measured:
    layer = nn.BatchNorm1d(1, momentum=1.0)
    layer(torch.tensor([[0.0], [2.0]]))
    return "unbiased" if float(layer.running_var) > 1.5 else "biased"


@PROBES
def batch_norm_axis() -> Measured:
    nn.BatchNorm1d(3)(torch.zeros(2, 3, 4))  # raises unless axis 1 is that of the features
    return 1


@PROBES
def batch_norm_phase() -> Measured:
    layer = nn.BatchNorm1d(1)
    layer(torch.tensor([[0.0], [2.0]]))
    return "training" if float(layer.running_mean) else "inference"


@PROBES
def batch_norm_offset() -> Measured:
    x = np.random.default_rng(0).normal(size=(64, 1)).astype("float32") + np.float32(1e4)
    out = nn.BatchNorm1d(1)(torch.from_numpy(x)).detach().numpy()
    true = (x.astype("float64") - x.mean(dtype="float64")) / x.astype("float64").std()
    return "kept" if np.abs(out - true).max() < 0.05 else "lost"


@PROBES
def layer_norm_epsilon() -> Measured:
    return nn.LayerNorm(1).eps


@PROBES
def dense_kernel_initial() -> Measured:
    return float(nn.Linear(100, 50).weight.detach().abs().max())


@PROBES
def dense_bias_initial() -> Measured:
    return "drawn" if float(nn.Linear(4, 8).bias.detach().abs().max()) > 0 else "zeros"


@PROBES
def dense_kernel_layout() -> Measured:
    return "out, in" if nn.Linear(2, 3).weight.shape == (3, 2) else "in, out"


@PROBES
def embedding_initial() -> Measured:
    return float(nn.Embedding(200, 200).weight.detach().std())


@PROBES
def he_normal_tail() -> Measured:
    drawn = nn.init.kaiming_normal_(torch.empty(300, 300))
    return "cut off" if float(drawn.abs().max() / drawn.std()) < 2.5 else "whole"


def _looked_up(index: int) -> Measured:
    table = torch.arange(1.0, 4.0).reshape(3, 1)
    try:
        found = float(functional.embedding(torch.tensor([index]), table))
    except (IndexError, RuntimeError):
        return "error"
    return "NaN" if found != found else f"row {int(found) - 1}"


PROBES.looked_up(_looked_up)


@PROBES
def padding_index() -> Measured:
    row = nn.Embedding(3, 2, padding_idx=0).weight.detach()[0]
    return "row of zeros" if float(row.abs().max()) == 0 else "mask"


@PROBES
def repeated_index_add() -> Measured:
    x = torch.zeros(2)
    x[torch.tensor([0, 0])] += 1
    return float(x[0])
