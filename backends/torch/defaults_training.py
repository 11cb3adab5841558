"""What torch does where nothing is said, in losses, optimizers and numbers."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader

from harness.extend import Measured

from .defaults import PROBES

__all__ = ["PROBES"]

RATE = 2.0**-10  # exact in every dtype


def _parameter(start: float, gradient: float) -> nn.Parameter:
    p = nn.Parameter(torch.tensor([start], dtype=torch.float64))
    p.grad = torch.tensor([gradient], dtype=torch.float64)
    return p


def _moved(optimizer: Any, gradient: float, start: float = 0.0, **options: Any) -> float:
    """How far one step moves a parameter, in learning rates."""
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
def adam_epsilon() -> Measured:
    return float(_default(optim.Adam, "eps"))


@PROBES
def adam_epsilon_place() -> Measured:
    return _moved(optim.Adam, 1e-8, eps=1e-8)


@PROBES
def adam_weight_decay() -> Measured:
    return _moved(optim.Adam, 0.0, 1.0, weight_decay=0.125)


@PROBES
def adamw_decay() -> Measured:
    return float(_default(optim.AdamW, "weight_decay"))


@PROBES
def rmsprop_decay() -> Measured:
    return float(_default(optim.RMSprop, "alpha"))


@PROBES
def rmsprop_epsilon_place() -> Measured:
    return _moved(optim.RMSprop, 1.0, alpha=0.0, eps=1.0)


@PROBES
def sgd_rate() -> Measured:
    return float(_default(optim.SGD, "lr"))


@PROBES
def adagrad_start() -> Measured:
    return float(_default(optim.Adagrad, "initial_accumulator_value"))


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
def default_float() -> Measured:
    return str(torch.zeros(1).dtype).removeprefix("torch.")


@PROBES
def default_integer() -> Measured:
    return str(torch.arange(1).dtype).removeprefix("torch.")


@PROBES
def float64_array() -> Measured:
    return str(torch.as_tensor(np.zeros(1)).dtype).removeprefix("torch.")


@PROBES
def standard_deviation() -> Measured:
    return float(torch.tensor([0.0, 2.0]).std())


@PROBES
def median_of_two() -> Measured:
    return float(torch.tensor([1.0, 2.0]).median())


@PROBES
def argmax_nan() -> Measured:
    return int(torch.tensor([1.0, math.nan, 2.0]).argmax())


@PROBES
def array_sharing() -> Measured:
    source = np.zeros(1, "float32")
    made = torch.as_tensor(source)
    source[0] = 1
    return "shares" if float(made[0]) else "copies"


@PROBES
def batch_of_data() -> Measured:
    return int(_default(DataLoader, "batch_size"))


@PROBES
def order_of_data() -> Measured:
    return "shuffled" if _default(DataLoader, "shuffle") else "as given"
