"""A gradient that leaves out a sum which is zero by algebra is as right as one that computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.checking.request import Request, make_case
from harness.language.model import load_spec
from harness.oracle.case import Case
from harness.oracle.oracle import TABLE
from harness.oracle.yardstick import WithoutZeroSums, ZeroSumRecorder

# The mean is 5,000 times the standard deviation, and a gradient sums terms that cancel.
SPEC = """
model: shifted_norm
summary: Batch normalization of numbers that are close together and far from zero.
source: none
sizes: {features: 64}
inputs: {x: {shape: [batch, features]}}
layers: {norm: {layer: batch_norm, epsilon: 1.0e-5}}
parameters: {scale: {shape: [features], init: ones}}
equations: y = norm(scale * (5 + 0.001 * x))
targets: {target: {shape: [batch, features]}}
loss: mean(squared_error(y, target))
"""


def fused_gradient(case: Case) -> np.ndarray:
    """Return the gradient of ``scale`` ``[features]`` in float32 by the backward formula of fused
    kernels (Ioffe and Szegedy, 2015, section 3), which takes ``sum(x - mean)`` for zero."""
    given = case.material
    parameters = {n: a.astype(np.float32) for n, a in given.parameters.items()}
    offset = 5 + np.float32(0.001) * given.inputs["x"].astype(np.float32)
    x = parameters["own.scale"] * offset
    centred = x - x.mean(0)
    inverse = 1 / np.sqrt((centred**2).mean(0) + np.float32(1e-5))
    gamma, beta = parameters["norm.gamma"], parameters["norm.beta"]
    error = gamma * centred * inverse + beta - given.targets["target"].astype(np.float32)
    dy = np.float32(2 / error.size) * error * gamma
    dx = inverse * (dy - dy.mean(0) - centred * inverse**2 * (dy * centred).mean(0))
    return (dx * offset).sum(0)


def test_the_fused_backward_formula_of_batch_normalization_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    case = make_case(load_spec(str(tmp_path / "spec.yaml")), Request(sizes={}), own=False)
    expected = case.gradients(case.material, "main").only("gradient.own.scale")
    found = {"gradient.own.scale": fused_gradient(case)}
    (deviation,) = expected.deviations(found, "float32")
    assert deviation.error > 1e-3
    assert deviation.agrees


def test_zero_sums_are_recorded_entry_by_entry_and_left_out() -> None:
    x = np.array([[1.0, 2.0], [-1.0, 2.0]]) + 1e-13
    attributes = {"axis": (0,), "keepdims": False}
    watching, without = ZeroSumRecorder(), WithoutZeroSums()
    for array in (x, np.zeros((2, 2)), np.ones((1, 2)), np.ones((2, 2), bool)):
        watching.primitives["sum"](array, **attributes)
    first, *others = watching.zeros
    assert first is not None
    assert first.tolist() == [True, False]
    assert others == [None, None, None]
    without.begin(watching.zeros)
    assert TABLE["sum"](x, **attributes)[0] != 0
    assert without.primitives["sum"](x, **attributes).tolist() == [0.0, 4.0 + 2e-13]
