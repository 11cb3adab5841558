"""What the Lesson 6 notebook printed for its helper functions, from the definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.language.model import load_spec
from harness.oracle import oracle
from harness.program.autodiff.differentiate import differentiate
from harness.program.ir import Port, Program

PREDICTION, ACTUAL = [0.2, 0.7, 0.1], [0.0, 1.0, 0.0]
# In[203], with all the digits of float64.
JACOBIAN = [
    [0.2022175567922179, -0.13056304077246844, -0.07165451601974948],
    [-0.13056304077246844, 0.24870136547595253, -0.11813832470348405],
    [-0.07165451601974948, -0.11813832470348405, 0.18979284072323355],
]


def lowered(sections: str, folders: Sequence[Path] = ()) -> Program:
    whole = "model: small\nsummary: s\nsource: s\n" + sections
    return load_spec("small", folders, {("model", "small"): whole}).program()


def helper(expression: str, loss: str | None = None) -> Program:
    """A model of one vector ``x`` of 3 classes."""
    target = "targets: {t: {shape: [batch, 3]}}\n" if loss and "t)" in loss else ""
    return lowered(
        f"sizes: {{}}\ninputs: {{x: {{shape: [batch, 3]}}}}\nlayers: {{}}\n"
        f"equations: y = {expression}\n{target}" + (f"loss: {loss}\n" if loss else "")
    )


def call(program: Program, arrays: Mapping[str, Any], seed: Any = None) -> tuple[Any, Any]:
    """The loss, or else ``y``, and the gradient of ``x`` under a cotangent."""
    output = program.outputs[0] if program.loss is None else Port("loss", program.loss)
    inputs = {p.name: p for p in (*program.inputs, *program.targets)}
    derived = differentiate(program, [output], [inputs["x"]])
    env = {p.value: np.atleast_2d(arrays[n]) for n, p in inputs.items()}
    shape = program.shape(output, {"batch": 1})
    env[derived.seeds[0].value] = np.ones(shape) if seed is None else np.reshape(seed, shape)
    result = oracle.run(derived.program.nodes, env, {**program.sizes, "batch": 1})
    return result[output.value], result[derived.gradients[0].value][0]


def test_relu_and_its_slope() -> None:
    y, slope = call(helper("relu(x)"), {"x": [3.0, -3.0, 0.0]})
    assert y[0].tolist() == [3, 0, 0]
    assert slope.tolist() == [1, 0, 0]


def test_cross_entropy_to_the_last_digit() -> None:
    program = helper("1 * x", "sum(clipped_cross_entropy(x, t))")
    value, slope = call(program, {"x": PREDICTION, "t": ACTUAL})
    assert float(value) == 0.35667494393873245
    assert slope.tolist() == [0, -1.4285714285714286, 0]


def test_softmax_and_its_jacobian() -> None:
    program = helper("softmax(x)")
    y, _ = call(program, {"x": PREDICTION})
    printed = [0.28140804404603065, 0.4639634279648093, 0.25462852798915997]
    np.testing.assert_allclose(y[0], printed, rtol=3e-16)
    jacobian = [call(program, {"x": PREDICTION}, row)[1] for row in np.eye(3)]
    np.testing.assert_allclose(jacobian, JACOBIAN, rtol=1e-15)


@pytest.mark.parametrize("total", [1.0, 1.5])
def test_the_chain_of_both_is_p_minus_y(total: float) -> None:
    """In[197]; in general ``p * sum(y) - y``, which is ``p - y`` only where the y add up to 1."""
    target = total * np.array([0.1, 0.6, 0.3])
    program = helper("softmax(x)", "sum(clipped_cross_entropy(softmax(x), t))")
    p, _ = call(helper("softmax(x)"), {"x": PREDICTION})
    _, slope = call(program, {"x": PREDICTION, "t": target})
    np.testing.assert_allclose(slope, p[0] * total - target, atol=2e-16)
    assert np.allclose(slope, p[0] - target) == (total == 1.0)


def test_squared_distance_and_its_slope() -> None:
    program = helper("1 * x", "sum(squared_error(x, t))")
    value, slope = call(program, {"x": [1.0, 2.0, 3.0], "t": [3.0, 2.0, 0.5]})
    assert value == 10.25
    assert slope.tolist() == [-4, 0, 5]


def test_sigmoid_and_its_slope() -> None:
    y, slope = call(helper("sigmoid(x)"), {"x": [-2.0, 0.0, 2.0]})
    np.testing.assert_allclose(y[0], 1 / (1 + np.exp([2.0, 0.0, -2.0])), rtol=1e-15)
    np.testing.assert_allclose(slope, y[0] * (1 - y[0]), rtol=1e-15)


def test_a_clipped_loss_stops_learning_where_the_logits_do_not() -> None:
    """A gap of 16.2 is past the clip: 16.118 and no gradient, against 16.2 and p - y."""
    logits, target = [16.2, 0.0, -100.0], [0.0, 1.0, 0.0]
    clipped = helper("1 * x", "sum(clipped_cross_entropy(softmax(x), t))")
    value, slope = call(clipped, {"x": logits, "t": target})
    assert float(value) == pytest.approx(16.11809565095832, rel=1e-14)
    assert not slope.any()
    exact = helper("1 * x", "sum(cross_entropy(x, t))")
    value, slope = call(exact, {"x": logits, "t": target})
    assert float(value) == pytest.approx(16.2, rel=1e-8)
    np.testing.assert_allclose(slope, [1, -1, 0], atol=1e-6)


SUM_LAYER = """layer: running_sum
summary: s
source: s
inputs: {x: [batch, time, features]}
state:
  total: {shape: [batch, features]}
scan:
  over: {x_t: x}
  step: total = total + x_t
  output: total
"""


def test_scan_of_addition_is_the_running_sum(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "running_sum.yaml").write_text(SUM_LAYER, encoding="utf-8")
    program = lowered(
        "sizes: {}\ninputs: {x: {shape: [batch, time, 1]}}\n"
        "layers: {add: {layer: running_sum}}\nequations: y = add(x)\n",
        [tmp_path],
    )
    env = {program.inputs[0].value: np.arange(5.0).reshape(1, 5, 1)}
    found = oracle.run(program.nodes, env, {"batch": 1, "time": 5})
    assert found[program.outputs[0].value].ravel().tolist() == [0, 1, 3, 6, 10]
