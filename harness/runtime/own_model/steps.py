"""Optimizer steps of a user's model with its framework's own optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.arrays import ArrayDict, Arrays
from harness.runtime.backend import Backend
from harness.runtime.native import NativeOptimizer
from harness.runtime.own_model.contract import OwnModel
from harness.runtime.own_model.matching import ModelWeights


class ModelSteps:
    """The steps of one optimizer. Its state starts with the first step."""

    def __init__(self, backend: Backend, optimizer: NativeOptimizer) -> None:
        self.backend, self.optimizer = backend, optimizer
        self.state: Any = None

    def advance(self, model: OwnModel, gradients: Arrays, learning_rate: float) -> None:
        """Change the trained arrays of a model by one step. ``gradients`` has the model's names."""
        trained = [n for n, array in model.entries().items() if array.trained and n in gradients]
        tensor = self.backend.tensor
        variables = {n: tensor(np.asarray(model.read(n))) for n in trained}
        if self.state is None:
            self.state = self.optimizer.start(variables)
        made = {n: tensor(np.asarray(gradients[n])) for n in trained}
        self.state, changed = self.optimizer.update(self.state, variables, made, learning_rate)
        model.put({n: self.backend.numpy(t) for n, t in changed.items()})

    def weights(self, model: OwnModel, weights: ModelWeights, gradients: Arrays) -> ArrayDict:
        """Return the weights of a model that the steps train, by the spec's names. Weights that are
        a sum of the model's arrays are left out, because each summand has its own steps."""
        entries = model.entries()
        return weights.layout.unpack(
            {
                name: place.total(model.read)
                for name, place in weights.places.items()
                if len(place.views) == 1
                and place.views[0].key in gradients
                and entries[place.views[0].key].trained
            }
        )
