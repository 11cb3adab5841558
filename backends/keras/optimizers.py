"""The optimizers of Keras that the harness knows.

They are claimed in float64 too, because they can be made exact there: the learning rate lives in a
variable of ``floatx``, and decay rates are given as numpy scalars, since TensorFlow rounds Python
floats to float32 on their way into a float64 tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.extend import Backend, NativeOptimizer, Tensors, UpdateRule

from .engines import Engine

# definition -> (class, its arguments, the slots in the order of Keras)
OPTIMIZERS: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "sgd": ("SGD", (), ()),
    "sgd_momentum_scaled": ("SGD", ("momentum",), ("velocity",)),
    "adam_epsilon_hat": ("Adam", ("beta_1", "beta_2", "epsilon"), ("m", "v")),
    "rmsprop_epsilon_inside": ("RMSprop", ("rho", "epsilon"), ("v",)),
}


class KerasOptimizer(NativeOptimizer):
    """A class of ``keras.optimizers`` with its settings."""

    def __init__(
        self,
        backend: Backend,
        keras: Any,
        engine: Engine,
        kind: str,
        settings: Mapping[str, float],
        slots: Sequence[str],
    ) -> None:
        self.label = f"keras.optimizers.{kind}"
        self.backend, self.keras, self.engine = backend, keras, engine
        self.kind, self.settings, self.names = kind, settings, slots

    def start(self, variables: Tensors) -> Any:
        keras = self.keras
        self.order = list(variables)
        number = np.float64 if keras.config.floatx() == "float64" else float  # see the module
        settings = {name: number(value) for name, value in self.settings.items()}
        optimizer = getattr(keras.optimizers, self.kind)(learning_rate=0.0, **settings)
        trained = [keras.Variable(self.backend.numpy(t)) for t in variables.values()]
        optimizer.build(trained)

        def step(variables: Tensors, constants: Tensors) -> Tensors:
            tensors = [variables[n] for n in self.order]
            gradients = [constants[f"gradient.{n}"] for n in self.order]
            state = [constants[f"state.{i}"] for i in range(len(optimizer.variables))]
            made = self.engine.apply(optimizer, trained, tensors, state, gradients)
            named = zip(self.order, made[0], strict=True)
            return {**dict(named), **{f"state.{i}": t for i, t in enumerate(made[1])}}

        self.step = self.engine.compile_part(step)
        return [self.backend.tensor(self.backend.numpy(v.value)) for v in optimizer.variables]

    def update(
        self,
        state: Any,
        variables: Tensors,
        gradients: Tensors,
        learning_rate: float,
        donate: bool = False,
    ) -> tuple[Any, Tensors]:
        rate = self.backend.tensor(np.array(learning_rate, self.keras.config.floatx()))
        state = [state[0], rate, *state[2:]]
        constants = {f"gradient.{n}": g for n, g in gradients.items()}
        constants |= {f"state.{i}": t for i, t in enumerate(state)}
        made = self.step(variables, constants)
        return [made[f"state.{i}"] for i in range(len(state))], {n: made[n] for n in self.order}

    def slots(self, state: Any) -> Mapping[str, Tensors]:
        """Keras lists the iteration, the learning rate, then each variable's slots together."""
        count = len(self.names)
        return {
            slot: dict(zip(self.order, state[2 + i :: count], strict=True))
            for i, slot in enumerate(self.names)
        }


def claim_optimizer(
    backend: Backend, keras: Any, engine: Engine, rule: UpdateRule
) -> NativeOptimizer | None:
    """Keras' class of the same update."""
    if rule.name not in OPTIMIZERS:
        return None
    kind, names, slots = OPTIMIZERS[rule.name]
    settings = {n: rule.attributes[n] for n in names}
    return KerasOptimizer(backend, keras, engine, kind, settings, slots)
