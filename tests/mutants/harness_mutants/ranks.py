"""Faults of optimizers in float32: for some parameter shapes, later rates or tiny gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.runtime.native import Tensors
from harness.runtime.session import Session
from harness_mutants import registry

STEPS = "optimizer-steps"
session = partial(registry.session, everywhere=True)


class _AlteredFloat32Updates(Session):
    """A session that alters the updates of optimizers with slots, in float32 only."""

    def _apply_rule(self, trained: Tensors, gradients: Tensors, learning_rate: float) -> Tensors:
        if self.dtype != "float32" or not self.slots:
            return super()._apply_rule(trained, gradients, learning_rate)
        return self.update_wrongly(trained, gradients, learning_rate)

    def update_wrongly(self, before: Tensors, gradients: Tensors, rate: float) -> Tensors:
        """Return the parameters after a faulty update."""
        raise NotImplementedError

    def halved(self, before: Tensors, gradients: Tensors, rate: float, *names: str) -> Tensors:
        """Return the update, with half of the change for the parameters ``names``."""
        made = super()._apply_rule(before, gradients, rate)
        half = {n: before[n] + np.float32(0.5) * (made[n] - before[n]) for n in names}
        return {**made, **half}


@session("simple_rnn", STEPS)
class VectorsHalfTheWay(_AlteredFloat32Updates):
    """float32 only: updates of vectors are halved."""

    def update_wrongly(self, before: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return self.halved(before, gradients, rate, *(n for n, t in before.items() if t.ndim == 1))


@session("lenet", STEPS)
class KernelsHalfTheWay(_AlteredFloat32Updates):
    """float32 only: updates of parameters with more than two axes are halved."""

    def update_wrongly(self, before: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return self.halved(before, gradients, rate, *(n for n, t in before.items() if t.ndim > 2))


@session("keras_gru", STEPS)
class NumbersHalfTheWay(_AlteredFloat32Updates):
    """float32 only: updates of parameters without axes are halved."""

    def update_wrongly(self, before: Tensors, gradients: Tensors, rate: float) -> Tensors:
        return self.halved(before, gradients, rate, *(n for n, t in before.items() if not t.ndim))


@session("three_char", STEPS)
class WideMatricesHalfTheWay(_AlteredFloat32Updates):
    """float32 only: updates of matrices with more than one column are halved."""

    def update_wrongly(self, before: Tensors, gradients: Tensors, rate: float) -> Tensors:
        wide = (n for n, t in before.items() if t.ndim == 2 and t.shape[1] > 1)
        return self.halved(before, gradients, rate, *wide)


@session("sequence_rnn", STEPS)
class RateOfTheFirstStep(_AlteredFloat32Updates):
    """float32 only: an optimizer with slots uses the learning rate of its first step."""

    _rate: float | None = None

    def load(self, *arguments: Any) -> None:
        super().load(*arguments)
        self._rate = None

    def update_wrongly(self, before: Tensors, gradients: Tensors, rate: float) -> Tensors:
        self._rate = self._rate or rate
        return self.halved(before, gradients, self._rate)


@session("first_rnn", STEPS)
class TinyGradientsDropped(_AlteredFloat32Updates):
    """float32 only: gradients smaller than 1e-5 are replaced by 0."""

    def update_wrongly(self, before: Tensors, gradients: Tensors, rate: float) -> Tensors:
        large = {n: np.where(np.abs(g) < 1e-5, 0 * g, g) for n, g in gradients.items()}
        return self.halved(before, large, rate)
