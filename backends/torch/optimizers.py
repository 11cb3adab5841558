"""The torch.optim optimizers that run instead of the equations of a spec's optimizer. If torch has
a fused implementation, it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from harness.extend import Clipping, NativeOptimizer, Tensors, UpdateRule, clipping

Tensor = Any


@dataclass
class _Running:
    """The state of a torch optimizer between steps: the optimizer, its parameters by name, and its
    step count."""

    optimizer: torch.optim.Optimizer
    parameters: dict[str, torch.nn.Parameter]
    steps: int = 0
    # The parameters after the last step, which the optimizer updates in place.
    made: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class _Clip:
    """A function of torch.nn.utils that clips gradients in place, and its limit."""

    name: str
    limit: float

    def run(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        getattr(torch.nn.utils, self.name)(parameters, self.limit)


@dataclass(frozen=True)
class TorchOptimizer(NativeOptimizer):
    """An optimizer class of torch.optim with its arguments.

    - ``buffers`` maps the slots of the spec's optimizer to torch's names, e.g. ``m`` to
      ``exp_avg``.
    - ``starts`` has the initial values of slots that do not start at zero.
    - ``epsilon``, if set, is added to the root of the second moment without bias correction.
      (torch's Adam adds its own epsilon to the corrected root.)
    - ``clip`` clips the gradients before each step.
    """

    kind: type[torch.optim.Optimizer]
    arguments: Mapping[str, Any]
    buffers: Mapping[str, str]
    epsilon: float | None = None
    starts: Mapping[str, float] = field(default_factory=dict)
    clip: _Clip | None = None

    @property
    def label(self) -> str:  # type: ignore[override]
        before = f"torch.nn.utils.{self.clip.name}, " if self.clip else ""
        return f"{before}torch.optim.{self.kind.__name__}"

    @property
    def clips(self) -> bool:  # type: ignore[override]
        return self.clip is not None

    def make(self, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Return the torch optimizer for some parameters. The parameters are passed as one
        parameter group, because torch rejects an empty list of parameters."""
        return self.kind([{"params": list(parameters)}], **self.arguments)

    def start(self, variables: Tensors) -> _Running:
        parameters = {n: torch.nn.Parameter(v.detach()) for n, v in variables.items()}
        return _Running(self.make(list(parameters.values())), parameters)

    def update(
        self,
        state: _Running,
        variables: Tensors,
        gradients: Tensors,
        learning_rate: Any,
        donate: bool = False,
    ) -> tuple[_Running, Tensors]:
        # Skip parameters that the last step returned, because an assignment takes as long as a
        # small kernel.
        back = donate and all(variables[n] is state.made.get(n) for n in state.parameters)
        for name, parameter in state.parameters.items():
            if not back:
                # Make the tensor contiguous, because a fused update ignores strides.
                variable = variables[name].detach().contiguous()
                # Copy the tensor if the caller may still read it, because the update is in place.
                parameter.data = variable if donate else variable.clone()
            gradient = gradients[name].contiguous()
            copies = self.clip is not None and not donate  # clipping changes gradients in place
            parameter.grad = gradient.clone() if copies else gradient
        if self.clip is not None:
            self.clip.run(state.parameters.values())
        state.steps += 1
        for group in state.optimizer.param_groups:
            # Fused updates accept a tensor as learning rate. All other updates need a number.
            group["lr"] = learning_rate if group.get("fused") else float(learning_rate)
            if self.epsilon is not None:
                group["eps"] = self.epsilon / (1 - group["betas"][1] ** state.steps) ** 0.5
        state.optimizer.step()
        if not back:
            state.made = {n: p.detach() for n, p in state.parameters.items()}
        return state, dict(state.made)

    def slots(self, state: _Running) -> Mapping[str, Tensors]:
        def buffer(parameter: torch.nn.Parameter, slot: str, name: str) -> Tensor:
            stored = state.optimizer.state[parameter].get(name)  # the first step creates it
            if stored is None:
                return torch.full_like(parameter, self.starts.get(slot, 0.0))
            # If torch stores one number for a parameter, use it for all entries.
            return stored.to(parameter).expand_as(parameter)

        return {
            slot: {n: buffer(p, slot, own) for n, p in state.parameters.items()}
            for slot, own in self.buffers.items()
        }


# The epsilon that clip_grad_norm_ adds to the norm.
NORM_EPSILON = 1e-6
MOMENTS: Mapping[str, str] = {"m": "exp_avg", "v": "exp_avg_sq"}
FUSED: Mapping[str, bool] = {"fused": True}


def _adam(numbers: Mapping[str, float], **more: Any) -> dict[str, Any]:
    betas = (numbers["beta_1"], numbers["beta_2"])
    return {"betas": betas, "eps": numbers["epsilon"], **more}


def _make_optimizer(name: str, numbers: Mapping[str, float], double: bool) -> TorchOptimizer | None:
    optim = torch.optim
    largest = {**MOMENTS, "largest": "max_exp_avg_sq"}
    match name:
        case "sgd":
            return TorchOptimizer(optim.SGD, FUSED, {})
        case "sgd_momentum" if numbers["momentum"] != 0:  # with momentum 0, SGD has no velocity
            arguments = {"momentum": numbers["momentum"], **FUSED}
            return TorchOptimizer(optim.SGD, arguments, {"velocity": "momentum_buffer"})
        case "adam":
            return TorchOptimizer(optim.Adam, _adam(numbers, **FUSED), MOMENTS)
        case "adam_epsilon_hat":
            hat = numbers["epsilon"]
            return TorchOptimizer(optim.Adam, _adam(numbers, **FUSED), MOMENTS, hat)
        case "adamw":
            arguments = _adam(numbers, weight_decay=numbers["weight_decay"], **FUSED)
            return TorchOptimizer(optim.AdamW, arguments, MOMENTS)
        case "amsgrad":
            arguments = _adam(numbers, amsgrad=True, **FUSED)
            return TorchOptimizer(optim.Adam, arguments, largest)
        case "nadam" if not double:  # NAdam always stores its product in float32
            arguments = _adam(numbers, momentum_decay=numbers["momentum_decay"])
            buffers = {**MOMENTS, "product": "mu_product"}
            return TorchOptimizer(optim.NAdam, arguments, buffers, starts={"product": 1.0})
        case "radam_epsilon_hat":
            return TorchOptimizer(optim.RAdam, _adam(numbers), MOMENTS)
        case "rmsprop":
            arguments = {"alpha": numbers["rho"], "eps": numbers["epsilon"]}
            return TorchOptimizer(optim.RMSprop, arguments, {"v": "square_avg"})
        case "adagrad":
            arguments = {"eps": numbers["epsilon"]}
            arguments["initial_accumulator_value"] = numbers["initial"]
            return TorchOptimizer(optim.Adagrad, arguments, {"squares": "sum"})
        case "adadelta":
            arguments = {"rho": numbers["rho"], "eps": numbers["epsilon"]}
            buffers = {"squares": "square_avg", "steps": "acc_delta"}
            return TorchOptimizer(optim.Adadelta, arguments, buffers)
    return None


def _clip(rule_clipping: Clipping | None) -> _Clip | None:
    """Return torch's function for the clipping of a rule. Return None if torch has no such
    function, e.g. for clipping by the norm of each parameter."""
    match rule_clipping:
        case Clipping(by="global_norm", epsilon=found) if found == NORM_EPSILON:
            return _Clip("clip_grad_norm_", rule_clipping.limit)
        case Clipping(by="value"):
            return _Clip("clip_grad_value_", rule_clipping.limit)
    return None


def claim_optimizer(rule: UpdateRule, double: bool) -> TorchOptimizer | None:
    """Return the torch.optim optimizer that makes the same update as the rule (a spec's optimizer);
    return None if torch has none. ``double`` is true in float64."""
    optimizer = _make_optimizer(rule.name, rule.attributes, double)
    try:
        if optimizer is not None:
            optimizer.make([])
    except ValueError:  # e.g. a negative momentum, which the definition allows
        return None
    return optimizer and replace(optimizer, clip=_clip(clipping(rule)))
