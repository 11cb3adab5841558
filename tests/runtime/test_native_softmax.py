"""On the native path, a softmax is the framework's own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from harness.backends.numpy.backend import Numpy
from harness.language.model import load_spec
from harness.runtime.session import Session

HEAD = """
model: heads
summary: One softmax, or none.
source: A test.
sizes: {width: 6}
inputs: {x: {shape: [batch, time, width]}}
layers: {}
equations: |
"""
# The equations -> the calls of the framework's softmax. All assigned names are outputs.
EQUATIONS = {
    "y = softmax(x)": 1,
    "y = softmax(2 * softmax(x))": 2,
    "y = softmax(x, axis=1)": 0,
    "e = exp(x - max(x, axis=-1, keepdims=true))\n  y = e / sum(e, axis=-1, keepdims=true)": 0,
    "y = exp(x) / sum(exp(x), axis=-1, keepdims=true)": 0,
}


@pytest.mark.parametrize(("equation", "count"), EQUATIONS.items())
@pytest.mark.parametrize("path", ["native", "equations"])
def test_when_the_softmax_of_the_framework_runs(equation: str, count: int, path: Any) -> None:
    calls: Counter[str] = Counter()

    def softmax(x: Any) -> Any:
        calls["softmax"] += 1
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    backend = Numpy()
    backend.fused = {**backend.fused, "softmax": softmax}
    spec = load_spec("heads", overrides={("model", "heads"): f"{HEAD}  {equation}\n"})
    programs = (spec.program("training"), spec.program("inference"))
    x = np.random.default_rng(0).normal(size=(3, 4, 6))
    runs = {}
    for path_, backend_ in ((path, backend), ("equations", Numpy())):
        session = Session(backend_, *programs, dtype="float64", path=path_)
        session.load({}, {})
        runs[backend_] = session.forward("inference", {"x": x}, {}, None)["output.y"]
    assert calls["softmax"] == (count if path == "native" else 0)
    ours, plain = runs.values()
    np.testing.assert_allclose(ours, plain, rtol=1e-14)
