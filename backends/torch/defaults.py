"""Measurements of torch's defaults: one function for each entry of ``specs/defaults``."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader

from harness.extend import Measured, Probes

PROBES = Probes()
BIG = 50.0  # large enough to saturate a gate
RATE = 2.0**-10  # exact in every dtype


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
def lstm_forget_bias() -> Measured:
    bias = nn.LSTM(2, 4).bias_ih_l0.detach()[4:8]
    return "drawn" if float(bias.std()) > 0 else float(bias[0])


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
def hard_sigmoid_slope() -> Measured:
    return float(functional.hardsigmoid(torch.ones(1)) - functional.hardsigmoid(torch.zeros(1)))


@PROBES
def hard_sigmoid_gradient() -> Measured:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    functional.hardsigmoid(x).sum().backward()
    assert x.grad is not None
    return "float32" if abs(float(x.grad[0]) * 6 - 1) > 1e-12 else "float64"


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
def batch_norm_momentum() -> Measured:
    layer = nn.BatchNorm1d(1)
    layer(torch.tensor([[0.0], [2.0]]))
    return float(layer.running_mean)  # after a batch with mean 1


@PROBES
def batch_norm_variance() -> Measured:
    layer = nn.BatchNorm1d(1, momentum=1.0)
    layer(torch.tensor([[0.0], [2.0]]))
    return "unbiased" if float(layer.running_var) > 1.5 else "biased"


@PROBES
def batch_norm_axis() -> Measured:
    nn.BatchNorm1d(3)(torch.zeros(2, 3, 4))  # raises an error unless axis 1 is the feature axis
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
def dense_bias_initial() -> Measured:
    return "drawn" if float(nn.Linear(4, 8).bias.detach().abs().max()) > 0 else "zeros"


@PROBES
def dense_kernel_layout() -> Measured:
    return "out, in" if nn.Linear(2, 3).weight.shape == (3, 2) else "in, out"


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


# Measurements of losses, optimizers and numeric functions follow.


def _parameter(start: float, gradient: float) -> nn.Parameter:
    p = nn.Parameter(torch.tensor([start], dtype=torch.float64))
    p.grad = torch.tensor([gradient], dtype=torch.float64)
    return p


def _moved(optimizer: Any, gradient: float, start: float = 0.0, **options: Any) -> float:
    """Return how far one step moves a parameter, divided by the learning rate."""
    p = _parameter(start, gradient)
    optimizer([p], lr=RATE, **options).step()
    return float((start - p.detach()[0]) / RATE)


def _default(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default


@PROBES
def cross_entropy_input() -> Measured:
    found = float(functional.cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([0])))
    return "logits" if found > 0.1 else "probabilities"


@PROBES
def cross_entropy_axis() -> Measured:
    functional.cross_entropy(torch.zeros(2, 3, 5), torch.zeros(2, 5, dtype=torch.int64))
    return 1


@PROBES
def loss_reduction() -> Measured:
    found = functional.cross_entropy(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    return "mean" if abs(float(found) - math.log(2)) < 1e-6 else "none"


@PROBES
def cross_entropy_gap() -> Measured:
    return float(functional.cross_entropy(torch.tensor([[0.0, 30.0]]), torch.tensor([0])))


@PROBES
def cross_entropy_targets() -> Measured:
    logits = torch.zeros(1, 2, requires_grad=True)
    functional.cross_entropy(logits, torch.tensor([[1.0, 0.5]])).backward()
    assert logits.grad is not None
    return float(logits.grad[0, 0])


@PROBES
def cross_entropy_ignored() -> Measured:
    found = functional.cross_entropy(torch.zeros(2, 3), torch.tensor([0, -100]))
    return "left out" if abs(float(found) - math.log(3)) < 1e-6 else "counted"


@PROBES
def kl_divergence() -> Measured:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    return float(functional.kl_div(q.log(), p))


@PROBES
def squared_error() -> Measured:
    return float(functional.mse_loss(torch.tensor([1.0]), torch.tensor([0.0])))


@PROBES
def cosine_similarity() -> Measured:
    return float(functional.cosine_similarity(torch.ones(1, 2), torch.ones(1, 2)))


@PROBES
def momentum_and_rate() -> Measured:
    p = _parameter(0.0, 1.0)
    optimizer = optim.SGD([p], lr=1.0, momentum=0.5)
    optimizer.step()
    before = float(p.detach()[0])
    optimizer.param_groups[0]["lr"] = 0.125
    optimizer.step()
    return before - float(p.detach()[0])


@PROBES
def repeated_rows_adam() -> Measured:
    layer = nn.Embedding(2, 1)
    with torch.no_grad():
        layer.weight.zero_()
    optimizer = optim.Adam(layer.parameters(), lr=RATE)
    layer(torch.tensor([0, 0, 1])).sum().backward()
    optimizer.step()
    return -float(layer.weight.detach()[0, 0]) / RATE


@PROBES
def absent_rows_adam() -> Measured:
    layer = nn.Embedding(2, 1)
    optimizer = optim.Adam(layer.parameters(), lr=RATE)
    for row in (0, 1):
        before = float(layer.weight.detach()[0, 0])
        optimizer.zero_grad()
        layer(torch.tensor([row])).sum().backward()
        optimizer.step()
    return "moves" if float(layer.weight.detach()[0, 0]) != before else "rests"


@PROBES
def gradient_clipping() -> Measured:
    parameters = [_parameter(0.0, 1.0), _parameter(0.0, 1.0)]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    assert parameters[0].grad is not None
    return float(parameters[0].grad[0])


@PROBES
def rate_dtype() -> Measured:
    p = _parameter(0.0, 1.0)
    optim.SGD([p], lr=0.1).step()
    return "exact" if abs(float(p.detach()[0]) + 0.1) < 1e-15 else "float32"


@PROBES
def float64_input() -> Measured:
    try:
        return str(nn.Linear(1, 1)(torch.zeros(1, 1, dtype=torch.float64)).dtype)[6:]
    except RuntimeError:
        return "error"


@PROBES
def array_sharing() -> Measured:
    source = np.zeros(1, "float32")
    made = torch.as_tensor(source)
    source[0] = 1
    return "shares" if float(made[0]) else "copies"


PROBES.update(
    {
        "gru-biases": lambda: _count(nn.GRU(1, 1)),
        "lstm-biases": lambda: _count(nn.LSTM(1, 1)),
        "rnn-biases": lambda: _count(nn.RNN(1, 1)),
        "input-kernel-initial": lambda: float(nn.GRU(100, 100).weight_ih_l0.detach().abs().max()),
        "relu-at-zero": lambda: _slope(torch.relu, 0.0),
        "maximum-at-tie": lambda: _slope(lambda x: torch.maximum(x, torch.zeros_like(x)), 0.0),
        "clip-at-bound": lambda: _slope(lambda x: torch.clamp(x, 0.0, 1.0), 1.0),
        "abs-at-zero": lambda: _slope(torch.abs, 0.0),
        "leaky-relu-slope": lambda: -float(nn.LeakyReLU()(-torch.ones(1))),
        "batch-norm-epsilon": lambda: nn.BatchNorm1d(1).eps,
        "layer-norm-epsilon": lambda: nn.LayerNorm(1).eps,
        "dense-kernel-initial": lambda: float(nn.Linear(100, 50).weight.detach().abs().max()),
        "embedding-initial": lambda: float(nn.Embedding(200, 200).weight.detach().std()),
        "adam-epsilon": lambda: float(_default(optim.Adam, "eps")),
        "adam-epsilon-place": lambda: _moved(optim.Adam, 1e-8, eps=1e-8),
        "adam-weight-decay": lambda: _moved(optim.Adam, 0.0, 1.0, weight_decay=0.125),
        "adamw-decay": lambda: float(_default(optim.AdamW, "weight_decay")),
        "rmsprop-decay": lambda: float(_default(optim.RMSprop, "alpha")),
        "rmsprop-epsilon-place": lambda: _moved(optim.RMSprop, 1.0, alpha=0.0, eps=1.0),
        "sgd-rate": lambda: float(_default(optim.SGD, "lr")),
        "adagrad-start": lambda: float(_default(optim.Adagrad, "initial_accumulator_value")),
        "default-float": lambda: str(torch.zeros(1).dtype).removeprefix("torch."),
        "default-integer": lambda: str(torch.arange(1).dtype).removeprefix("torch."),
        "float64-array": lambda: str(torch.as_tensor(np.zeros(1)).dtype).removeprefix("torch."),
        "standard-deviation": lambda: float(torch.tensor([0.0, 2.0]).std()),
        "median-of-two": lambda: float(torch.tensor([1.0, 2.0]).median()),
        "argmax-nan": lambda: int(torch.tensor([1.0, math.nan, 2.0]).argmax()),
        "batch-of-data": lambda: int(_default(DataLoader, "batch_size")),
        "order-of-data": lambda: "shuffled" if _default(DataLoader, "shuffle") else "as given",
    }
)
