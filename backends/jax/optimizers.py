"""The optax optimizers that the backend ``jax`` uses instead of the equations of a spec's
optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import optax

from harness.extend import Clipping, NativeOptimizer, Tensors, UpdateRule, clipping

# The spec's optimizer -> optax's optimizer and its arguments: the name of an attribute of the spec,
# or a fixed value. adam_epsilon_hat is missing, because optax cannot add epsilon to the root of the
# uncorrected moment.
BETAS: Mapping[str, str] = {"b1": "beta_1", "b2": "beta_2"}
DECAYED: Mapping[str, str] = {**BETAS, "weight_decay": "weight_decay"}
OPTIMIZERS: Mapping[str, tuple[str, Mapping[str, str | bool]]] = {
    "adadelta": ("adadelta", {"rho": "rho", "eps": "epsilon"}),
    "adagrad_epsilon_inside": (
        "adagrad",
        {"initial_accumulator_value": "initial", "eps": "epsilon"},
    ),
    "adamw": ("adamw", {**DECAYED, "eps": "epsilon"}),
    "amsgrad_corrected": ("amsgrad", {**BETAS, "eps": "epsilon"}),
    "lamb": ("lamb", {**DECAYED, "eps": "epsilon"}),
    "lion": ("lion", DECAYED),
    "nadam_constant": ("nadam", {**BETAS, "eps": "epsilon"}),
    "radam": ("radam", {**BETAS, "eps": "epsilon"}),
    "adam": ("adam", {"b1": "beta_1", "b2": "beta_2", "eps": "epsilon"}),
    "rmsprop": ("rmsprop", {"decay": "rho", "eps": "epsilon", "eps_in_sqrt": False}),
    "rmsprop_epsilon_inside": ("rmsprop", {"decay": "rho", "eps": "epsilon", "eps_in_sqrt": True}),
    "sgd": ("sgd", {}),
    "sgd_momentum": ("sgd", {"momentum": "momentum"}),
}

# The spec's slot -> the field of optax's state.
SLOTS: Mapping[str, str] = {"m": "mu", "v": "nu", "velocity": "trace", "largest": "nu_max"}
# Optimizers whose state has other field names.
OWN_SLOTS: Mapping[str, Mapping[str, str]] = {
    "adadelta": {"squares": "e_g", "steps": "e_x"},
    "adagrad_epsilon_inside": {"squares": "sum_of_squares"},
}


class OptaxOptimizer(NativeOptimizer):
    """An optax optimizer with its arguments.

    Each step makes the optimizer again by ``make(learning_rate)``, because the learning rate can
    change. The state of the optimizer (moments and step count) goes from step to step.
    ``optax.inject_hyperparams`` could also change the learning rate, but it would round the
    coefficients, and ``1 - beta_2``, to float32. Here they are Python floats.
    """

    def __init__(
        self, label: str, make: Callable[[Any], Any], slots: Mapping[str, str], clips: bool
    ) -> None:
        self.label, self.clips = label, clips
        self._slots = slots
        self._start = jax.jit(lambda variables: make(0.0).init(variables))

        def step(
            state: Any, variables: Tensors, gradients: Tensors, learning_rate: Any
        ) -> tuple[Any, Tensors]:
            updates, state = make(learning_rate).update(gradients, state, variables)
            return state, optax.apply_updates(variables, updates)

        self._step = jax.jit(step)

    def start(self, variables: Tensors) -> Any:
        return self._start(variables)

    def update(
        self,
        state: Any,
        variables: Tensors,
        gradients: Tensors,
        learning_rate: Any,
        donate: bool = False,
    ) -> tuple[Any, Tensors]:
        return self._step(state, variables, gradients, learning_rate)

    def slots(self, state: Any) -> Mapping[str, Tensors]:
        return {slot: optax.tree_utils.tree_get(state, own) for slot, own in self._slots.items()}


def claim_optimizer(rule: UpdateRule) -> OptaxOptimizer | None:
    """Return the optax optimizer that makes the same update as the rule (a spec's optimizer);
    return None if there is none."""
    if rule.name not in OPTIMIZERS:
        return None
    name, settings = OPTIMIZERS[rule.name]
    arguments = {n: rule.attributes[v] if isinstance(v, str) else v for n, v in settings.items()}
    make = partial(getattr(optax, name), **arguments)
    fields = {**SLOTS, **OWN_SLOTS.get(rule.name, {})}
    slots, label, clip = {p.name: fields[p.name] for p in rule.slots}, f"optax.{name}", _clip(rule)
    if clip is None:
        return OptaxOptimizer(label, make, slots, clips=False)
    function, limit = clip
    label = f"optax.{function}, {label}"
    clipped = lambda rate: optax.chain(getattr(optax, function)(limit), make(rate))  # noqa: E731
    return OptaxOptimizer(label, clipped, slots, clips=True)


def _clip(rule: UpdateRule) -> tuple[str, float] | None:
    """Return the name of optax's clipping function and its limit; return None if optax cannot clip
    gradients as the rule does."""
    match clipping(rule):
        case Clipping(by="global_norm", limit=limit, epsilon=0):
            return "clip_by_global_norm", limit
        case Clipping(by="value", limit=limit):
            return "clip", limit
    return None
