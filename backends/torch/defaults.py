"""Measurements of torch's defaults, e.g. of an optimizer's epsilon: one function for each entry of
``specs/defaults``."""

from __future__ import annotations

import inspect
import math
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


ZERO, ONE = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)


def _set_to_zero(layer: Any) -> Any:
    for parameter in layer.requires_grad_(False).parameters():
        parameter.zero_()
    return layer


def _layer_with_gate_bias(kind: Any, block: int, bias: float) -> Any:
    """Return a recurrent layer with one unit, whose parameters are all 0, except one: the entry
    ``block`` of the bias array is ``bias``. This entry belongs to one gate, and the layer's results
    show which gate."""
    layer = _set_to_zero(kind(1, 1))
    layer.bias_ih_l0[block] = bias
    return layer


def _reset_gru() -> Any:
    layer = _set_to_zero(nn.GRU(1, 2))
    layer.weight_hh_l0[4:] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    layer.bias_hh_l0[1] = -BIG  # the second unit's state is reset
    return layer(ZERO, torch.tensor([[[1.0, 0.0]]]))[1][0, 0, 1]


def _padded_step() -> Any:
    rows = nn.utils.rnn.pack_padded_sequence(torch.ones(2, 2, 1), torch.tensor([2, 1]), True)
    out, _ = nn.utils.rnn.pad_packed_sequence(nn.LSTM(1, 1, batch_first=True)(rows)[0], True)
    return out[1, 1, 0].detach()


def _batch_norm_after_batch(**options: Any) -> nn.BatchNorm1d:
    """Return a batch norm layer that has normalised one batch with mean 1. Its moving statistics
    show the layer's defaults, e.g. the momentum."""
    layer = nn.BatchNorm1d(1, **options)
    layer(torch.tensor([[0.0], [2.0]]))
    return layer


def _count(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _derivative(function: Any, at: Any) -> float:
    x = torch.tensor(at, requires_grad=True)
    function(x).sum().backward()
    assert x.grad is not None
    return float(x.grad.ravel()[0])


@PROBES
def hard_sigmoid_gradient() -> Measured:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    functional.hardsigmoid(x).sum().backward()
    assert x.grad is not None
    return "float32" if abs(float(x.grad[0]) * 6 - 1) > 1e-12 else "float64"


@PROBES
def batch_norm_axis() -> Measured:
    nn.BatchNorm1d(3)(torch.zeros(2, 3, 4))  # raises an error unless axis 1 is the feature axis
    return 1


def _look_up(index: int) -> Measured:
    table = torch.arange(1.0, 4.0).reshape(3, 1)
    try:
        entry = float(functional.embedding(torch.tensor([index]), table))
    except (IndexError, RuntimeError):
        return "error"
    return "NaN" if entry != entry else f"row {int(entry) - 1}"


PROBES.looked_up(_look_up)


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


def _step_size(optimizer: Any, gradient: float, start: float = 0.0, **options: Any) -> float:
    """Return how far one optimizer step moves a parameter from ``start``, divided by the learning
    rate. The gradient is ``gradient``."""
    p = _parameter(start, gradient)
    optimizer([p], lr=RATE, **options).step()
    return float((start - p.detach()[0]) / RATE)


def _default_argument(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default


@PROBES
def cross_entropy_axis() -> Measured:
    functional.cross_entropy(torch.zeros(2, 3, 5), torch.zeros(2, 5, dtype=torch.int64))
    return 1


@PROBES
def cross_entropy_targets() -> Measured:
    logits = torch.zeros(1, 2, requires_grad=True)
    functional.cross_entropy(logits, torch.tensor([[1.0, 0.5]])).backward()
    assert logits.grad is not None
    return float(logits.grad[0, 0])


@PROBES
def cross_entropy_ignored() -> Measured:
    loss = functional.cross_entropy(torch.zeros(2, 3), torch.tensor([0, -100]))
    return "left out" if abs(float(loss) - math.log(3)) < 1e-6 else "counted"


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
def float64_input() -> Measured:
    try:
        return str(nn.Linear(1, 1)(torch.zeros(1, 1, dtype=torch.float64)).dtype)[6:]
    except RuntimeError:
        return "error"


def _rate_error() -> Any:
    p = _parameter(0.0, 1.0)
    optim.SGD([p], lr=0.1).step()
    return -p.detach()


PROBES.observe(
    {
        "gru-reset": _reset_gru,
        "gru-gates": lambda block: _layer_with_gate_bias(nn.GRU, block, BIG)(ZERO, 3 * ONE)[1],
        "lstm-gates": lambda block: _layer_with_gate_bias(nn.LSTM, block, BIG)(
            ZERO, (ZERO, 3 * ONE)
        )[1],
        "lstm-forget-bias": lambda: nn.LSTM(2, 4).bias_ih_l0.detach()[4:8],
        "recurrent-layout": lambda: nn.GRU(3, 4)(torch.zeros(5, 2, 3))[1].shape[1],
        "recurrent-output": lambda: nn.GRU(3, 4)(torch.zeros(5, 2, 3))[0].ndim,
        "recurrent-kernel-initial": lambda: nn.GRU(4, 8).weight_hh_l0.detach().T,
        "masked-steps": _padded_step,
        "softmax-axis": lambda: functional.softmax(torch.zeros(2, 3, 5), dim=None),
        "gelu-form": lambda: functional.gelu(torch.ones(1)),
        "batch-norm-variance": lambda: _batch_norm_after_batch(momentum=1.0).running_var,
        "batch-norm-phase": lambda: _batch_norm_after_batch().running_mean,
        "batch-norm-offset": lambda x: nn.BatchNorm1d(1)(torch.from_numpy(x)).detach(),
        "dense-bias-initial": lambda: nn.Linear(4, 8).bias.detach().numpy(),
        "dense-kernel-layout": lambda: nn.Linear(2, 3).weight.shape,
        "he-normal-tail": lambda: nn.init.kaiming_normal_(torch.empty(300, 300)),
        "padding-index": lambda: nn.Embedding(3, 2, padding_idx=0).weight.detach().numpy()[0],
        "cross-entropy-input": lambda: functional.cross_entropy(
            torch.tensor([[1.0, 0.0]]), torch.tensor([0])
        ),
        "loss-reduction": lambda: functional.cross_entropy(
            torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
        ),
        "rate-dtype": _rate_error,
        "array-sharing": lambda array: torch.as_tensor(array).numpy,
        "order-of-data": lambda: _default_argument(DataLoader, "shuffle"),
    }
)
PROBES.update(
    {
        "gru-biases": lambda: _count(nn.GRU(1, 1)),
        "lstm-biases": lambda: _count(nn.LSTM(1, 1)),
        "rnn-biases": lambda: _count(nn.RNN(1, 1)),
        "gate-activation": lambda: float(_layer_with_gate_bias(nn.GRU, 1, 1.0)(ZERO, ONE)[1]),
        "input-kernel-initial": lambda: float(nn.GRU(100, 100).weight_ih_l0.detach().abs().max()),
        "hard-sigmoid-slope": lambda: float(
            functional.hardsigmoid(torch.ones(1)) - functional.hardsigmoid(torch.zeros(1))
        ),
        "relu-at-zero": lambda: _derivative(torch.relu, 0.0),
        "max-at-tie": lambda: _derivative(lambda x: x.max(1).values, [[1.0, 1.0]]),
        "maximum-at-tie": lambda: _derivative(lambda x: torch.maximum(x, torch.zeros_like(x)), 0.0),
        "clip-at-bound": lambda: _derivative(lambda x: torch.clamp(x, 0.0, 1.0), 1.0),
        "abs-at-zero": lambda: _derivative(torch.abs, 0.0),
        "leaky-relu-slope": lambda: -float(nn.LeakyReLU()(-torch.ones(1))),
        "batch-norm-momentum": lambda: float(_batch_norm_after_batch().running_mean),
        "batch-norm-epsilon": lambda: nn.BatchNorm1d(1).eps,
        "layer-norm-epsilon": lambda: nn.LayerNorm(1).eps,
        "dense-kernel-initial": lambda: float(nn.Linear(100, 50).weight.detach().abs().max()),
        "embedding-initial": lambda: float(nn.Embedding(200, 200).weight.detach().std()),
        "cross-entropy-gap": lambda: float(
            functional.cross_entropy(torch.tensor([[0.0, 30.0]]), torch.tensor([0]))
        ),
        "kl-divergence": lambda: float(
            functional.kl_div(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.5, 0.5]]))
        ),
        "squared-error": lambda: float(functional.mse_loss(torch.ones(1), torch.zeros(1))),
        "cosine-similarity": lambda: float(
            functional.cosine_similarity(torch.ones(1, 2), torch.ones(1, 2))
        ),
        "adam-epsilon": lambda: float(_default_argument(optim.Adam, "eps")),
        "adam-epsilon-place": lambda: _step_size(optim.Adam, 1e-8, eps=1e-8),
        "adam-weight-decay": lambda: _step_size(optim.Adam, 0.0, 1.0, weight_decay=0.125),
        "adamw-decay": lambda: float(_default_argument(optim.AdamW, "weight_decay")),
        "rmsprop-decay": lambda: float(_default_argument(optim.RMSprop, "alpha")),
        "rmsprop-epsilon-place": lambda: _step_size(optim.RMSprop, 1.0, alpha=0.0, eps=1.0),
        "sgd-rate": lambda: float(_default_argument(optim.SGD, "lr")),
        "adagrad-start": lambda: float(
            _default_argument(optim.Adagrad, "initial_accumulator_value")
        ),
        "default-float": lambda: str(torch.zeros(1).dtype).removeprefix("torch."),
        "default-integer": lambda: str(torch.arange(1).dtype).removeprefix("torch."),
        "float64-array": lambda: str(torch.as_tensor(np.zeros(1)).dtype).removeprefix("torch."),
        "standard-deviation": lambda: float(torch.tensor([0.0, 2.0]).std()),
        "median-of-two": lambda: float(torch.tensor([1.0, 2.0]).median()),
        "argmax-nan": lambda: int(torch.tensor([1.0, math.nan, 2.0]).argmax()),
        "batch-of-data": lambda: int(_default_argument(DataLoader, "batch_size")),
    }
)
