"""A backend whose fast maximum loses NaN: no result of a session or a step lacks any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sampling import sampled

from harness.backends.numpy.backend import Numpy
from harness.language.model import Spec, load_spec
from harness.oracle.draw import draw
from harness.program.plan import Plan
from harness.runtime.answers import Arguments
from harness.runtime.backend import Backend
from harness.runtime.native import Tensors
from harness.runtime.session import Session
from harness.runtime.step_loop import Clock, Pipeline

SIZES = {"hidden": 7, "vocab": 11, "factors": 5}
# Softmaxes of logits, of scores that are masked, with a gradient through them, and pools.
MODELS = ("lesson6/sequence_rnn", "gpt", "moe", "bert", "lenet")


class Scripted(Numpy):
    """numpy, node by node."""

    def execute(self, plan: Plan) -> Callable[[Tensors], Tensors]:
        return Backend.execute(self, plan)


class Lossy(Scripted):
    """With a maximum that takes NaN for nothing, where it may."""

    lost = 0

    def __init__(self) -> None:
        super().__init__()
        self.fused = {"loose_max": self._loose}

    def _loose(self, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
        self.lost += bool(np.isnan(x).any())
        return np.fmax.reduce(x, axis=axis, keepdims=keepdims)


def results(backend: Numpy, spec: Spec, material: Arguments) -> dict[str, Any]:
    """Those of a training pass with gradients, of an inference, and of a planned step."""
    sizes = {n: v for n, v in SIZES.items() if n in spec.model.sizes}
    programs = (spec.program("training", **sizes), spec.program("inference", **sizes))
    session = Session(backend, *programs, dtype="float64", rule=spec.update, path="derived")
    session.load(material.parameters, material.statistics)
    given = (material.inputs, material.state)
    passed, gradients = session.gradients("training", *given, material.targets)
    found = passed | {f"gradient {n}": a for n, a in gradients.items()}
    found |= {f"inference {n}": a for n, a in session.forward("inference", *given).items()}
    batch = {"inputs": material.inputs, "targets": material.targets}
    values = material.parameters, material.statistics, material.state
    pipeline = Pipeline(session, "train", *values, [batch], 0.1)
    (step,) = Clock(pipeline).values(0, 1)
    parameters = pipeline.parameters()["parameters"]
    return found | {f"step {n}": a for n, a in {**step, **parameters}.items()}


@pytest.mark.parametrize("name", sampled(MODELS, ["gpt"]))
def test_results_have_all_their_nan(name: str) -> None:
    spec, lossy = load_spec(name), Lossy()
    sizes = {n: v for n, v in SIZES.items() if n in spec.model.sizes}
    drawn = draw(spec.program("training", **sizes), 3, 4, 5)
    random = np.random.default_rng(7)
    names = sorted(drawn.parameters)
    with np.errstate(all="ignore"):
        for parameter in ("", *names[:: max(1, len(names) // 6)], names[-1]):
            parameters = {n: np.array(a) for n, a in drawn.parameters.items()}
            if parameter:
                array = parameters[parameter]
                array.flat[random.integers(array.size)] = np.nan
            material = replace(drawn, parameters=parameters)
            exact, loose = (results(b, spec, material) for b in (Scripted(), lossy))
            for result, array in exact.items():
                name = f"{result}, {parameter}"
                np.testing.assert_allclose(loose[result], array, 1e-9, 1e-9, err_msg=name)
    assert lossy.lost
