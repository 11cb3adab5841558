"""optax and jax in float64: a second witness of losses and optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
import optax.contrib

jax.config.update("jax_enable_x64", True)


def optimizer(make: Callable[..., Any], slots: Callable[[Any], Mapping[str, Any]], **options: Any):
    """Steps of an optax transformation without a rate, the rate applied outside of it."""

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        transformation = make(**options)
        p = jax.numpy.asarray(given["p"])
        state = transformation.init(p)
        history: dict[str, list[Any]] = {}
        for g, rate in zip(given["gradients"], given["learning_rates"], strict=True):
            update, state = transformation.update(jax.numpy.asarray(g), state, p)
            p = optax.apply_updates(p, -rate * update)
            for name, value in {"p": p, **slots(state)}.items():
                history.setdefault(name, []).append(np.asarray(value))
        return {name: np.stack(values) for name, values in history.items()}

    return run


def whole(make: Callable[..., Any], **options: float):
    """Steps of one of optax's own optimizers, made anew for each rate over one state."""

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        p = jax.numpy.asarray(given["p"])
        state = make(0.0, **options).init(p)
        made = []
        for g, rate in zip(given["gradients"], given["learning_rates"], strict=True):
            update, state = make(rate, **options).update(jax.numpy.asarray(g), state, p)
            p = optax.apply_updates(p, update)
            made.append(np.asarray(p))
        return {"p": np.stack(made)}

    return run


def below_root(kernel: Callable[[Mapping[str, Any]], dict[str, Any]]):
    """A kernel at rates that are no larger than 1 / sqrt(t)."""

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        rates = enumerate(given["learning_rates"], start=1)
        return kernel({**given, "learning_rates": [min(rate, t**-0.5) for t, rate in rates]})

    return run


def muon(shape: tuple[int, int], numbers: Mapping[str, float]):
    """Muon of parts of optax, which by itself corrects the momentum: that is left to ``trace``."""
    momentum, (rows, columns) = numbers["momentum"], shape

    def make() -> Any:
        return optax.chain(
            optax.trace(momentum, nesterov=True),
            optax.scale(1 - momentum),
            optax.contrib.scale_by_muon(beta=0.0, eps=numbers["epsilon"], nesterov=False),
            optax.scale(max(1.0, columns / rows) ** 0.5),
            optax.add_decayed_weights(numbers["weight_decay"]),
        )

    return optimizer(make, lambda state: {"m": (1 - momentum) * state[0].trace})


def loss(function: Callable[[Any, Any], Any], first: str) -> Callable[..., dict[str, Any]]:
    """Values and, through ``jax.vjp``, the gradient of the first argument."""

    def run(given: Mapping[str, Any], cotangent: Any) -> dict[str, Any]:
        target = np.asarray(given["target"])
        y, pull = jax.vjp(lambda x: function(x, target), jax.numpy.asarray(given[first]))
        return {"y": y, f"gradient.{first}": pull(jax.numpy.asarray(cotangent))[0]}

    return run
