"""What the torch backend claims: the functions behind torch.nn's modules, torch.optim's classes.

The functions run on the packed parameters themselves, so that autograd reaches them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.extend import (
    FrozenZeros,
    Join,
    Layer,
    Native,
    NativeOptimizer,
    Packing,
    Part,
    Piece,
    Tensors,
    UpdateRule,
)

Tensor = Any
Claim = Callable[[Layer], Native | None]


def _embedding(layer: Layer) -> Native:
    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        return [torch.nn.functional.embedding(values["indices"], packed["weight"])]

    return Native("torch.nn.functional.embedding", run, Packing({"weight": Part("table")}))


def _dense(layer: Layer) -> Native | None:
    activation = layer.attributes["activation"]
    if activation not in ("linear", "relu", "tanh", "sigmoid"):
        return None
    label = "torch.nn.functional.linear"
    if activation != "linear":
        label += f", torch.{activation}"

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        y = torch.nn.functional.linear(values["x"], packed["weight"], packed.get("bias"))
        return [y if activation == "linear" else getattr(torch, activation)(y)]

    pieces: dict[str, Piece] = {"weight": Part("W", transpose=True)}
    if "b" in layer.shapes:
        pieces["bias"] = Part("b")
    return Native(label, run, Packing(pieces))


def _batch_norm(layer: Layer) -> Native:
    epsilon, momentum = layer.attributes["epsilon"], layer.attributes["momentum"]
    training = layer.phase == "training"

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        x, mean, variance = values["x"], values["moving_mean"], values["moving_variance"]
        rows = x.reshape(-1, x.shape[-1])
        moving = (None, None) if training else (mean, variance)
        # Not torch.nn.functional.batch_norm: it refuses the single row that this same kernel takes.
        y = torch.batch_norm(
            rows, packed["weight"], packed["bias"], *moving, training, 0.0, epsilon,
            torch.backends.cudnn.enabled,
        ).reshape(x.shape)  # fmt: skip
        if training:
            # Not torch's own moving variance: it is of the unbiased kind.
            new_variance, new_mean = torch.var_mean(rows.detach(), dim=0, correction=0)
            mean = momentum * mean + (1 - momentum) * new_mean
            variance = momentum * variance + (1 - momentum) * new_variance
        return [y, mean, variance]

    label = "torch.batch_norm, torch.var_mean" if training else "torch.batch_norm"
    return Native(label, run, Packing({"weight": Part("gamma"), "bias": Part("beta")}))


def _recurrent(label: str, states: Sequence[str], pieces: Mapping[str, Piece]) -> Native:
    kernel = getattr(torch, label.removeprefix("torch."))

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        # cuDNN wants its states contiguous, and differentiates in its training mode only, which
        # without dropout computes the same.
        initial = [values[state].unsqueeze(0).contiguous() for state in states]
        weights = [packed[name] for name in pieces]
        has_biases, layers, dropout, training, bidirectional, batch_first = (
            len(weights) == 4, 1, 0.0, True, False, True,
        )  # fmt: skip
        output, *final = kernel(
            values["x"], initial if len(initial) > 1 else initial[0], weights,
            has_biases, layers, dropout, training, bidirectional, batch_first,
        )  # fmt: skip
        return [output, *(state.squeeze(0) for state in final)]

    return Native(label, run, Packing(pieces))


def _gates(prefix: str, order: str, transpose: bool) -> Join:
    return Join(tuple(Part(f"{prefix}_{gate}", transpose) for gate in order), 0)


def _gated(layer: Layer) -> bool:
    return (layer.attributes["activation"], layer.attributes["gate"]) == ("tanh", "sigmoid")


def _simple_rnn(layer: Layer) -> Native | None:
    activation = layer.attributes["activation"]
    if activation not in ("tanh", "relu"):
        return None
    pieces: dict[str, Piece] = {
        "weight_ih_l0": Part("W", transpose=True),
        "weight_hh_l0": Part("U", transpose=True),
    }
    if "b" in layer.shapes:
        second = Part("c") if "c" in layer.shapes else FrozenZeros(layer.shapes["b"])
        pieces |= {"bias_ih_l0": Part("b"), "bias_hh_l0": second}
    return _recurrent(f"torch.rnn_{activation}", ["h"], pieces)


def _lstm(layer: Layer) -> Native | None:
    if not _gated(layer):
        return None
    (units,) = layer.shapes["b_i"]
    pieces: dict[str, Piece] = {
        "weight_ih_l0": _gates("W", "ifgo", transpose=True),
        "weight_hh_l0": _gates("U", "ifgo", transpose=True),
        "bias_ih_l0": _gates("b", "ifgo", transpose=False),
        "bias_hh_l0": FrozenZeros((4 * units,)),
    }
    return _recurrent("torch.lstm", ["h", "c"], pieces)


def _gru_reset_after(layer: Layer) -> Native | None:
    if not _gated(layer):
        return None
    pieces: dict[str, Piece] = {
        "weight_ih_l0": _gates("W", "rzn", transpose=True),
        "weight_hh_l0": _gates("U", "rzn", transpose=True),
        "bias_ih_l0": _gates("b", "rzn", transpose=False),
        "bias_hh_l0": _gates("c", "rzn", transpose=False),
    }
    return _recurrent("torch.gru", ["h"], pieces)


def _cross_entropy(layer: Layer) -> Native:
    """One row an example: torch wants the classes on axis 1, and the order of rows is free."""

    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        logits, target = values["logits"], values["target"]
        *leading, classes = logits.shape
        rows = target.reshape(-1) if target.dim() < logits.dim() else target.reshape(-1, classes)
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, classes), rows, reduction="none"
        )
        return [loss.reshape(leading)]

    return Native("torch.nn.functional.cross_entropy", run, Packing({}))


def _squared_error(layer: Layer) -> Native:
    def run(values: Tensors, packed: Tensors) -> Sequence[Tensor]:
        prediction, target = values["prediction"], values["target"]
        return [torch.nn.functional.mse_loss(prediction, target, reduction="none")]

    return Native("torch.nn.functional.mse_loss", run, Packing({}))


# What runs on cuDNN on a GPU.
CUDNN = frozenset({"torch.rnn_tanh", "torch.rnn_relu", "torch.lstm", "torch.gru"})

CLAIMS: Mapping[str, Claim] = {
    "embedding": _embedding,
    "dense": _dense,
    "dense_without_bias": _dense,
    "batch_norm": _batch_norm,
    "simple_rnn": _simple_rnn,
    "simple_rnn_two_biases": _simple_rnn,
    "simple_rnn_without_bias": _simple_rnn,
    "lstm": _lstm,
    "gru_reset_after": _gru_reset_after,
    "sparse_cross_entropy": _cross_entropy,
    "cross_entropy": _cross_entropy,
    "squared_error": _squared_error,
}


@dataclass
class _Running:
    """A torch optimizer and the parameters that it was made for, by name."""

    optimizer: torch.optim.Optimizer
    parameters: dict[str, torch.nn.Parameter]


@dataclass(frozen=True)
class TorchOptimizer(NativeOptimizer):
    """A class of torch.optim with its arguments.

    ``buffers`` maps the definition's slots to the class's own names.
    """

    kind: type[torch.optim.Optimizer]
    arguments: Mapping[str, Any]
    buffers: Mapping[str, str]

    @property
    def label(self) -> str:  # type: ignore[override]
        return f"torch.optim.{self.kind.__name__}"

    def make(self, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer; as one group, because torch refuses a bare empty list."""
        return self.kind([{"params": list(parameters)}], **self.arguments)

    def start(self, variables: Tensors) -> _Running:
        parameters = {n: torch.nn.Parameter(v.detach()) for n, v in variables.items()}
        return _Running(self.make(list(parameters.values())), parameters)

    def update(
        self,
        state: _Running,
        variables: Tensors,
        gradients: Tensors,
        learning_rate: float,
        donate: bool = False,
    ) -> tuple[_Running, Tensors]:
        for name, parameter in state.parameters.items():
            # torch steps in place: on a copy where the caller may still read the tensor before it.
            variable = variables[name].detach()
            parameter.data = variable if donate else variable.clone()
            parameter.grad = gradients[name]
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate
        state.optimizer.step()
        return state, {n: p.detach() for n, p in state.parameters.items()}

    def slots(self, state: _Running) -> Mapping[str, Tensors]:
        def buffer(parameter: torch.nn.Parameter, name: str) -> Tensor:
            found = state.optimizer.state[parameter].get(name)  # made by the first step
            return torch.zeros_like(parameter) if found is None else found

        return {
            slot: {n: buffer(p, own) for n, p in state.parameters.items()}
            for slot, own in self.buffers.items()
        }


def claim_optimizer(rule: UpdateRule) -> TorchOptimizer | None:
    """torch.optim's class of the same update, if it takes these numbers."""
    numbers = rule.attributes
    arguments: dict[str, Any]
    if rule.name == "sgd":
        made = TorchOptimizer(torch.optim.SGD, {}, {})
    elif rule.name == "sgd_momentum" and numbers["momentum"] != 0:  # at 0, SGD keeps no velocity
        arguments = {"momentum": numbers["momentum"]}
        made = TorchOptimizer(torch.optim.SGD, arguments, {"velocity": "momentum_buffer"})
    elif rule.name == "adam":
        betas = (numbers["beta_1"], numbers["beta_2"])
        arguments = {"betas": betas, "eps": numbers["epsilon"]}
        made = TorchOptimizer(torch.optim.Adam, arguments, {"m": "exp_avg", "v": "exp_avg_sq"})
    elif rule.name == "rmsprop":
        arguments = {"alpha": numbers["rho"], "eps": numbers["epsilon"]}
        made = TorchOptimizer(torch.optim.RMSprop, arguments, {"v": "square_avg"})
    else:
        return None
    try:
        made.make([])
    except ValueError:  # such as a negative momentum, which the definition allows
        return None
    return made
