"""The Keras optimizers that run instead of the equations of a spec's optimizer.

In float64, the learning rate is a variable of the dtype ``floatx``, and decay rates are numpy
scalars, because TensorFlow would round Python floats to float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from harness.extend import Array, Backend, Clipping, NativeOptimizer, Tensors, UpdateRule, clipping

from .engines import Engine

MOMENTS: Mapping[str, str] = {"m": "_momentums", "v": "_velocities"}
ADAM: tuple[str, ...] = ("beta_1", "beta_2", "epsilon")
LEAST_BETA = 0.1
# Kind of clipping -> Keras' argument. Keras does not add an epsilon to a norm.
CLIPS: Mapping[str, str] = {
    "value": "clipvalue",
    "norm": "clipnorm",
    "global_norm": "global_clipnorm",
}


class KerasClass(NamedTuple):
    """A Keras optimizer class: ``kind`` is its name, e.g. ``Adam``.

    ``names`` are those of its arguments that the spec's optimizer has as attributes of the same
    name. ``slots`` maps a slot of the spec to Keras' list of variables, e.g. ``_momentums``.
    ``further`` maps other arguments to their values, or to names of attributes of the spec's
    optimizer.
    """

    kind: str
    names: tuple[str, ...]
    slots: Mapping[str, str]
    further: Mapping[str, str | bool] = MappingProxyType({})


# Nadam is missing, because the harness cannot restore its state: a part is not a Keras variable.
OPTIMIZERS: Mapping[str, KerasClass] = {
    "adadelta": KerasClass(
        "Adadelta",
        ("rho", "epsilon"),
        {"squares": "_accumulated_grads", "steps": "_accumulated_delta_vars"},
    ),
    "adagrad_epsilon_inside": KerasClass(
        "Adagrad",
        ("epsilon",),
        {"squares": "_accumulators"},
        {"initial_accumulator_value": "initial"},
    ),
    "adam_epsilon_hat": KerasClass("Adam", ADAM, MOMENTS),
    "adamw_epsilon_hat": KerasClass("AdamW", (*ADAM, "weight_decay"), MOMENTS),
    "amsgrad_epsilon_hat": KerasClass(
        "Adam", ADAM, {**MOMENTS, "largest": "_velocity_hats"}, {"amsgrad": True}
    ),
    "lamb": KerasClass("Lamb", ADAM, MOMENTS),
    "lion": KerasClass("Lion", ("beta_1", "beta_2", "weight_decay"), {"m": "_momentums"}),
    "rmsprop_epsilon_inside": KerasClass("RMSprop", ("rho", "epsilon"), {"v": "_velocities"}),
    "sgd": KerasClass("SGD", (), {}),
    "sgd_momentum_scaled": KerasClass("SGD", ("momentum",), {"velocity": "momentums"}),
}


class KerasOptimizer(NativeOptimizer):
    """An optimizer class of ``keras.optimizers`` with its settings."""

    def __init__(
        self,
        backend: Backend,
        keras: Any,
        engine: Engine,
        keras_class: KerasClass,
        settings: Mapping[str, float],
        clip: Clipping | None,
    ) -> None:
        self.label, self.clips = f"keras.optimizers.{keras_class.kind}", clip is not None
        if clip is not None:
            self.label = f"{self.label}({CLIPS[clip.by]})"
            settings = {**settings, CLIPS[clip.by]: clip.limit}
        self.backend, self.keras, self.engine = backend, keras, engine
        self.keras_class, self.settings = keras_class, settings
        self.first: list[Array] = []
        self.shapes: dict[str, tuple[int, ...]] = {}

    def start(self, variables: Tensors) -> Any:
        shapes = {n: tuple(t.shape) for n, t in variables.items()}
        # Create the optimizer once, so that compiled steps are reused. No Keras optimizer computes
        # its initial state from the values of parameters.
        if list(shapes.items()) != list(self.shapes.items()):
            self._make(variables)
            self.shapes = shapes
        return [self.backend.tensor(array) for array in self.first]

    def _make(self, variables: Tensors) -> None:
        keras, order = self.keras, list(variables)
        number = np.float64 if keras.config.floatx() == "float64" else float  # see above
        settings = {
            name: value if isinstance(value, bool) else number(value)
            for name, value in self.settings.items()
        }
        optimizer = getattr(keras.optimizers, self.keras_class.kind)(learning_rate=0.0, **settings)
        trained = [keras.Variable(self.backend.numpy(t)) for t in variables.values()]
        optimizer.build(trained)
        places = {id(variable): i for i, variable in enumerate(optimizer.variables)}
        self.places = {
            slot: [places[id(variable)] for variable in getattr(optimizer, own)]
            for slot, own in self.keras_class.slots.items()
        }

        def step(variables: Tensors, constants: Tensors) -> Tensors:
            tensors = [variables[n] for n in order]
            gradients = [constants[f"gradient.{n}"] for n in order]
            state = [constants[f"state.{i}"] for i in range(len(optimizer.variables))]
            result = self.engine.apply(optimizer, trained, tensors, state, gradients)
            named = zip(order, result[0], strict=True)
            return {**dict(named), **{f"state.{i}": t for i, t in enumerate(result[1])}}

        self.step = self.engine.compile_part(step)
        self.first = [self.backend.numpy(v.value) for v in optimizer.variables]

    def update(
        self,
        state: Any,
        variables: Tensors,
        gradients: Tensors,
        learning_rate: Any,
        donate: bool = False,
    ) -> tuple[Any, Tensors]:
        rate: Any = learning_rate
        if isinstance(learning_rate, float):
            rate = self.backend.tensor(np.array(learning_rate, self.keras.config.floatx()))
        state = [state[0], rate, *state[2:]]
        constants = {f"gradient.{n}": g for n, g in gradients.items()}
        constants |= {f"state.{i}": t for i, t in enumerate(state)}
        results = self.step(variables, constants)
        new_state = [results[f"state.{i}"] for i in range(len(state))]
        return new_state, {n: results[n] for n in self.shapes}

    def slots(self, state: Any) -> Mapping[str, Tensors]:
        return {
            slot: {n: state[i] for n, i in zip(self.shapes, places, strict=True)}
            for slot, places in self.places.items()
        }


def claim_optimizer(
    backend: Backend, keras: Any, engine: Engine, rule: UpdateRule
) -> NativeOptimizer | None:
    """Return the Keras optimizer that makes the same update as the rule (a spec's optimizer);
    return None if Keras has none."""
    keras_class, numbers = OPTIMIZERS.get(rule.name), rule.attributes
    if keras_class is None or (keras_class.kind == "Lamb" and numbers["weight_decay"] != 0):
        return None  # Keras applies weight decay outside of LAMB's norms
    if keras_class.kind == "Lion" and not 0 < numbers["beta_1"] <= 1:
        return None  # Keras rejects it
    doubled = keras.config.floatx() == "float64" and keras.backend.backend() == "jax"
    if keras_class.kind == "Adadelta" and doubled:
        return None  # it multiplies a numpy scalar by a tracer, which raises an error
    # Keras adds (g - m) * (1 - beta) to the mean m. If beta is near 0, this loses digits of g.
    moves = keras_class.slots.keys() >= MOMENTS.keys()
    if moves and min(numbers["beta_1"], numbers["beta_2"]) < LEAST_BETA:
        return None
    if 0 in (numbers.get("rho"), numbers.get("momentum")):
        return None  # SGD then has no velocity, and Adadelta converts a symbolic tensor to a number
    settings: dict[str, float] = {n: numbers[n] for n in keras_class.names}
    settings |= {n: numbers[v] if isinstance(v, str) else v for n, v in keras_class.further.items()}
    return KerasOptimizer(backend, keras, engine, keras_class, settings, _clip(keras, rule))


def _clip(keras: Any, rule: UpdateRule) -> Clipping | None:
    """Return the clipping of the rule if Keras can clip gradients in the same way; otherwise
    None."""
    limits = clipping(rule)
    # On torch, Keras' minimum and maximum of a float64 tensor and a number are float32.
    rounds = keras.config.floatx() == "float64" and keras.backend.backend() == "torch"
    if limits is None or limits.epsilon or (rounds and limits.by != "value"):
        return None
    return limits
