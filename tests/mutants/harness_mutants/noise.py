"""Faults of noise: drawn by the backend, reused for each batch, or rounded."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.arrays import Arrays
from harness.program.ir import Phase
from harness.program.signature import noise_ports
from harness.runtime.session import Session
from harness_mutants.registry import BOTH, session

Both = tuple[dict[str, Any], dict[str, Any]]


class _NoisySession(Session):
    """A session that knows which arguments of a step are noise."""

    @property
    def noise(self) -> list[str]:
        return [f"input.{port.name}" for port in noise_ports(self.programs["training"])]


@session("vae", "outputs", BOTH)
class NoiseOfItsOwn(_NoisySession):
    """The backend draws its own noise, from the same distribution."""

    def arguments(self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays) -> Both:
        variables, constants = super().arguments(phase, inputs, state, targets)
        random = np.random.default_rng(1)
        for name in self.noise if phase == "training" else ():
            variables[name] = self.float_tensor(random.normal(size=variables[name].shape))
        return variables, constants


@session("vae", "training", ("float64",))
class NoiseOfTheFirstBatch(_NoisySession):
    """All batches get the noise of the first batch."""

    kept: dict[str, Any]

    def arguments(self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays) -> Both:
        variables, constants = super().arguments(phase, inputs, state, targets)
        self.kept = getattr(self, "kept", {})
        for name in self.noise if phase == "training" else ():
            key = f"{name} {variables[name].shape}"
            variables[name] = self.kept.setdefault(key, variables[name])
        return variables, constants


@session("vae", "outputs", BOTH)
class NoiseInHalf(_NoisySession):
    """Noise is rounded to float16."""

    def arguments(self, phase: Phase, inputs: Arrays, state: Arrays, targets: Arrays) -> Both:
        variables, constants = super().arguments(phase, inputs, state, targets)
        for name in self.noise if phase == "training" else ():
            variables[name] = self.float_tensor(np.float16(self.array(variables[name], name)))
        return variables, constants
