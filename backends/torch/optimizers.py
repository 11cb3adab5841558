"""The optimizers that the torch backend claims: torch.optim's classes, with fused updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.extend import NativeOptimizer, Tensors, UpdateRule

Tensor = Any


@dataclass
class _Running:
    """A torch optimizer, the parameters that it was made for by name, and the steps it has made."""

    optimizer: torch.optim.Optimizer
    parameters: dict[str, torch.nn.Parameter]
    steps: int = 0


@dataclass(frozen=True)
class TorchOptimizer(NativeOptimizer):
    """A class of torch.optim with its arguments.

    ``buffers`` maps the definition's slots to the class's own names. ``epsilon``, if there is one,
    stands beside the root of the uncorrected second moment, where Adam has its own.
    """

    kind: type[torch.optim.Optimizer]
    arguments: Mapping[str, Any]
    buffers: Mapping[str, str]
    epsilon: float | None = None

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
            # A fused update takes the numbers as they lie in memory, whatever the strides say.
            variable = variables[name].detach().contiguous()
            # torch steps in place: on a copy where the caller may still read the tensor before it.
            parameter.data = variable if donate else variable.clone()
            parameter.grad = gradients[name].contiguous()
        state.steps += 1
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate
            if self.epsilon is not None:
                group["eps"] = self.epsilon / (1 - group["betas"][1] ** state.steps) ** 0.5
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
        made = TorchOptimizer(torch.optim.SGD, {"fused": True}, {})
    elif rule.name == "sgd_momentum" and numbers["momentum"] != 0:  # at 0, SGD keeps no velocity
        arguments = {"momentum": numbers["momentum"], "fused": True}
        made = TorchOptimizer(torch.optim.SGD, arguments, {"velocity": "momentum_buffer"})
    elif rule.name in ("adam", "adam_epsilon_hat"):
        betas = (numbers["beta_1"], numbers["beta_2"])
        arguments = {"betas": betas, "eps": numbers["epsilon"], "fused": True}
        hat = numbers["epsilon"] if rule.name == "adam_epsilon_hat" else None
        slots = {"m": "exp_avg", "v": "exp_avg_sq"}
        made = TorchOptimizer(torch.optim.Adam, arguments, slots, hat)
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
