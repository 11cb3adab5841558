"""optax and jax in float64: a second witness of losses and optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

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


def loss(function: Callable[[Any, Any], Any], first: str) -> Callable[..., dict[str, Any]]:
    """Values and, through ``jax.vjp``, the gradient of the first argument."""

    def run(given: Mapping[str, Any], cotangent: Any) -> dict[str, Any]:
        target = np.asarray(given["target"])
        y, pull = jax.vjp(lambda x: function(x, target), jax.numpy.asarray(given[first]))
        return {"y": y, f"gradient.{first}": pull(jax.numpy.asarray(cotangent))[0]}

    return run
