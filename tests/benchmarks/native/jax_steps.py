"""Steps in JAX, compiled: what a loss and a prediction are of is said by who makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from contract import Arrays, Given


class Baseline:
    """Batches on the device, and what is carried from one to the next."""

    def __init__(self, parameters: Any, carried: Any, batches: Any) -> None:
        self.parameters = jax.device_put(parameters)
        self.carried = jax.device_put(carried)
        self.feed(batches)

    def feed(self, batches: Sequence[Mapping[str, Arrays]]) -> None:
        """Other batches of the same shapes."""
        self.batches = jax.device_put(list(batches))

    def finish(self, handle: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
        """Wait for a step's results."""
        return {name: np.asarray(array) for name, array in handle.items()}


class Training(Baseline):
    """One update a step, down (parameters, carried, batch) -> (loss, carried)."""

    def __init__(self, loss: Callable[..., Any], optimizer: Any, *arrays: Any) -> None:
        super().__init__(*arrays)
        self.optimizer_state = optimizer.init(self.parameters)

        @partial(jax.jit, donate_argnums=(0, 1, 2))
        def step(parameters: Any, optimizer_state: Any, carried: Any, batch: Any) -> Any:
            grad = jax.value_and_grad(loss, has_aux=True)
            (value, carried), gradients = grad(parameters, carried, batch)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
            return optax.apply_updates(parameters, updates), optimizer_state, carried, value

        self.step = step

    def start(self, index: int) -> dict[str, jax.Array]:
        """Begin an update; its loss is that from before it."""
        self.parameters, self.optimizer_state, self.carried, loss = self.step(
            self.parameters,
            self.optimizer_state,
            self.carried,
            self.batches[index % len(self.batches)],
        )
        return {"loss": loss}


class Forward(Baseline):
    """One prediction a step, by (parameters, carried, inputs) -> (outputs, carried)."""

    def __init__(self, predict: Callable[..., Any], *arrays: Any) -> None:
        super().__init__(*arrays)
        self.predict = jax.jit(predict)

    def start(self, index: int) -> dict[str, jax.Array]:
        """Begin a forward pass."""
        inputs = self.batches[index % len(self.batches)]["inputs"]
        outputs, self.carried = self.predict(self.parameters, self.carried, inputs)
        return outputs


def use_dtype(given: Given) -> None:
    """Have JAX compute in the dtype of the parameters."""
    dtype = next(iter(given.parameters.values())).dtype
    jax.config.update("jax_enable_x64", bool(dtype == np.float64))
