"""Layers and losses that the torch backend runs with torch's own functions, which torch.nn's
modules call too. The functions take the packed parameters as arguments, so autograd computes
gradients of these parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import torch

from harness.extend import ClaimableCall, Native, Packing, Part, Piece, Tensors

from .attention import ATTENTION
from .images import CONVOLUTIONS, POOLS, convolution, pool
from .recurrent import RECURRENT

Tensor = Any
Claim = Callable[[ClaimableCall], Native | None]


def _embedding(layer: ClaimableCall) -> Native:
    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        return [torch.nn.functional.embedding(values["indices"], packed["weight"])]

    return Native("torch.nn.functional.embedding", run, Packing({"weight": Part("table")}))


# Below this number of entries, copying a tensor is faster than making three views and their
# gradients.
FEW = 2**16


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x [..., features] @ weight.T + bias, computed as one product of all rows, in the order
    of memory.

    The output of a recurrent layer is time-first in memory. For such an input, torch would copy it,
    or make one product for each row of the batch. Small tensors are passed to torch unchanged,
    because the copy is faster than the views.
    """
    if x.dim() == 3 and x.numel() >= FEW and not x.is_contiguous():
        rows = x.transpose(0, 1).flatten(0, 1)
        y = torch.nn.functional.linear(rows, weight, bias)
        return y.unflatten(0, (x.shape[1], x.shape[0])).transpose(0, 1)
    return torch.nn.functional.linear(x, weight, bias)


class Activation(NamedTuple):
    """The torch function for an activation of specs: its name in torch, and extra arguments."""

    name: str
    arguments: Mapping[str, str] = {}

    def code(self, argument: str) -> str:
        """Return the source of a call, for a file that imports ``torch`` and ``nn``."""
        given = "".join(f", {name}={value!r}" for name, value in self.arguments.items())
        return f"{self.name.replace('torch.nn.', 'nn.')}({argument}{given})".replace("'", '"')

    def __call__(self, x: Tensor) -> Tensor:
        """Return the function's values, in the shape of ``x``."""
        return attrgetter(self.name.removeprefix("torch."))(torch)(x, **self.arguments)


# Name of an activation in specs -> torch's function. Softplus is missing, because torch's is linear
# above 20.
ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation("torch.relu"),
    "tanh": Activation("torch.tanh"),
    "sigmoid": Activation("torch.sigmoid"),
    "gelu": Activation("torch.nn.functional.gelu"),
    "gelu_tanh": Activation("torch.nn.functional.gelu", {"approximate": "tanh"}),
    "silu": Activation("torch.nn.functional.silu"),
}


def _dense(layer: ClaimableCall) -> Native | None:
    name = layer.attributes["activation"]
    activation = ACTIVATIONS.get(name)
    if activation is None and name != "linear":
        return None

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        y = _linear(values["x"], packed["weight"], packed.get("bias"))
        return [y if activation is None else activation(y)]

    label = "torch.nn.functional.linear" + (f", {activation.name}" if activation else "")
    pieces: dict[str, Piece] = {"weight": Part("W", transpose=True)}
    if "b" in layer.shapes:
        pieces["bias"] = Part("b")
    return Native(label, run, Packing(pieces))


def _layer_norm(layer: ClaimableCall) -> Native:
    epsilon = layer.attributes["epsilon"]

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x, weight, bias = values["x"], packed["weight"], packed["bias"]
        return [torch.nn.functional.layer_norm(x, weight.shape, weight, bias, epsilon)]

    pieces = {"weight": Part("gamma"), "bias": Part("beta")}
    return Native("torch.nn.functional.layer_norm", run, Packing(pieces))


def _rms_norm(layer: ClaimableCall) -> Native:
    epsilon = layer.attributes["epsilon"]

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        weight = packed["weight"]
        return [torch.nn.functional.rms_norm(values["x"], weight.shape, weight, epsilon)]

    return Native("torch.nn.functional.rms_norm", run, Packing({"weight": Part("gamma")}))


def _group_norm(layer: ClaimableCall) -> Native:
    groups, epsilon = layer.attributes["groups"], layer.attributes["epsilon"]

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        # torch needs the channels on axis 1.
        x, affine = values["x"].transpose(1, 2), (packed["weight"], packed["bias"])
        # Do not use torch.nn.functional.group_norm: it rejects groups of a single value, which this
        # kernel accepts.
        y = torch.group_norm(x, groups, *affine, epsilon, torch.backends.cudnn.enabled)
        return [y.transpose(1, 2)]

    pieces = {"weight": Part("gamma"), "bias": Part("beta")}
    return Native("torch.group_norm", run, Packing(pieces))


def _batch_norm(layer: ClaimableCall) -> Native:
    epsilon, momentum = layer.attributes["epsilon"], layer.attributes["momentum"]
    training = layer.phase == "training"

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x, mean, variance = values["x"], values["moving_mean"], values["moving_variance"]
        rows = x.reshape(-1, x.shape[-1])
        moving = (None, None) if training else (mean, variance)
        # Do not use torch.nn.functional.batch_norm: it rejects a batch of a single row, which this
        # kernel accepts.
        y = torch.batch_norm(
            rows, packed["weight"], packed["bias"], *moving, training, 0.0, epsilon,
            torch.backends.cudnn.enabled,
        ).reshape(x.shape)  # fmt: skip
        if training:
            # Do not use torch's moving variance, which is computed from the unbiased variance.
            new_variance, new_mean = torch.var_mean(rows.detach(), dim=0, correction=0)
            mean = momentum * mean + (1 - momentum) * new_mean
            variance = momentum * variance + (1 - momentum) * new_variance
        return [y, mean, variance]

    label = "torch.batch_norm, torch.var_mean" if training else "torch.batch_norm"
    return Native(label, run, Packing({"weight": Part("gamma"), "bias": Part("beta")}))


def _cross_entropy(layer: ClaimableCall) -> Native:
    """Return torch's cross-entropy for a loss; the batch is flattened to rows, because torch needs
    classes on axis 1."""

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        logits, target = values["logits"], values["target"]
        *leading, classes = logits.shape
        rows = target.reshape(-1) if target.dim() < logits.dim() else target.reshape(-1, classes)
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, classes), rows, reduction="none"
        )
        return [loss.reshape(leading)]

    return Native("torch.nn.functional.cross_entropy", run, Packing({}))


def _squared_error(layer: ClaimableCall) -> Native:
    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        prediction, target = values["prediction"], values["target"]
        return [torch.nn.functional.mse_loss(prediction, target, reduction="none")]

    return Native("torch.nn.functional.mse_loss", run, Packing({}))


CLAIMS: Mapping[str, Claim] = {
    "embedding": _embedding,
    "dense": _dense,
    "dense_without_bias": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    **ATTENTION,
    **RECURRENT,
    "sparse_cross_entropy": _cross_entropy,
    "cross_entropy": _cross_entropy,
    "squared_error": _squared_error,
    **dict.fromkeys(CONVOLUTIONS, convolution),
    **dict.fromkeys(POOLS, pool),
}
