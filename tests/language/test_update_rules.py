"""What an optimizer's equations may be made of: entry by entry, and numbers of a whole tensor."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import numpy as np
import pytest
from wording import Wording

from harness.errors import SpecError
from harness.language.library import Library
from harness.language.lower_optimizer import ALLOWED, lower_update
from harness.oracle import oracle
from harness.program.primitives import EVERY
from harness.program.updates import UpdateRule, at_shape

OPTIMIZER = """\
optimizer: bad
summary: One.
source: Made for a test.
attributes: {learning_rate: 0.01}
update: |
  p = p - learning_rate * (EXPRESSION)
"""
FUNCTION = """\
function: inner
summary: One.
source: Made for a test.
inputs: {x: [...]}
equations: |
  y = EXPRESSION
output: y
"""
# What users write -> the primitive that is refused.
REFUSED = {
    "g / sum(g, axis=0, keepdims=1)": "sum over some axes",
    "g / max(g, axis=-1)": "max over some axes",
    "g - mean(g, axis=[0])": "mean over some axes",
    "g - var(g, axis=0)": "var over some axes",
    "g @ g": "matmul",
    "g * g[0]": "slice",
    "g[1:]": "slice",
    "g[::-1]": "flip",
    "concat([g, g], axis=0)": "concat",
    "expand_dims(g, axis=0)": "expand_dims",
    "permute_dims(g, axes=[0])": "permute_dims",
    "one_hot(g, 3)": "one_hot",
    "take(g, g)": "take",
    "take_along_axis(g, g)": "take_along_axis",
}
ELEMENTWISE = (
    "g",
    "where(g > 0, g, stop_gradient(p) * t)",
    "sqrt(g * g) + exp(-g) + log(g ** 2 + 1) + tanh(g) / 3",
    "relu(g) + sigmoid(p) + maximum(g, minimum(p, 1))",
    "g[:] * 1",
)


def rule(folder: Path, expression: str, inner: str = ""):
    for kind, name, text in (
        ("optimizers", "bad", OPTIMIZER.replace("EXPRESSION", expression)),
        ("functions", "inner", FUNCTION.replace("EXPRESSION", inner or "1 * x")),
    ):
        (folder / kind).mkdir()
        (folder / kind / f"{name}.yaml").write_text(text)
    return lower_update(Library((folder,)), "bad", {}, None)


@pytest.mark.parametrize("expression", REFUSED)
def test_what_is_not_elementwise_is_refused(expression: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="not elementwise") as caught:
        rule(tmp_path, expression)
    text = str(caught.value)
    assert re.search(r"optimizers/bad\.yaml:6:\d+: ", text)
    assert f": {REFUSED[expression]} " in text
    assert "allowed: + - * /" in text or "leave out axis=" in text


@pytest.mark.parametrize("expression", REFUSED)
def test_also_inside_of_a_function_that_it_calls(
    expression: str, tmp_path: Path, wording: Wording
) -> None:
    inner = re.sub(r"\b[gt]\b", "x", expression)
    with pytest.raises(SpecError, match="not elementwise") as caught:
        rule(tmp_path, "inner(g)", inner)
    assert re.search(r"functions/inner\.yaml:6:\d+: ", str(caught.value))
    wording.line(caught.value, "optimizers/bad.yaml:6:28")


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_also_in_functions_that_ship(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=rf"not elementwise.*in {name} called at"):
        rule(tmp_path, f"{name}(g)")


# What a whole tensor makes a number of -> that number.
WHOLE = {
    "g / sqrt(sum(g * g))": lambda g: g / np.sqrt(np.sum(g * g)),
    "g * max(g)": lambda g: g * np.max(g),
    "g - mean(g)": lambda g: g - np.mean(g),
    "g * var(g)": lambda g: g * np.var(g),
    "g - sum(g, keepdims=1)": lambda g: g - np.sum(g),
    "g * sum(t)": lambda g: g * 3.0,
}


@pytest.mark.parametrize("shape", [(2, 3), (6,), (1, 3, 2, 1), ()], ids=str)
@pytest.mark.parametrize("expression", WHOLE)
def test_a_reduction_is_over_the_whole_tensor(
    expression: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    found = rule(tmp_path, expression)
    values = np.array([0.5, -2.0, 1.5, 3.0, -0.25, 1.0])[: prod(shape)].reshape(shape)
    new = updated(found, values)
    assert np.shape(new) == shape
    expected = values - 0.1 * WHOLE[expression](values + 1)
    np.testing.assert_allclose(new, expected, rtol=1e-15, atol=1e-15)


def updated(found: UpdateRule, p: np.ndarray) -> np.ndarray:
    """What a rule makes of a parameter whose gradient is one more, at step 3."""
    env = {
        found.parameter: p,
        found.gradient: p + 1,
        found.step: np.float64(3.0),
        found.learning_rate: np.float64(0.1),
    }
    nodes = at_shape(found, found.nodes, np.shape(p))
    return oracle.run(nodes, env, {"entries": np.size(p)})[found.new_parameter]


@pytest.mark.parametrize("expression", ELEMENTWISE)
def test_what_is_elementwise_is_taken(expression: str, tmp_path: Path) -> None:
    """And gives each entry the same, wherever it stands and whatever stands beside it."""
    found = rule(tmp_path, expression)
    values = np.array([[0.5, -2.0, 1.5], [3.0, -0.25, 1.0]])
    whole = updated(found, values)
    assert whole.shape == values.shape
    for place, value in np.ndenumerate(values):
        np.testing.assert_array_equal(updated(found, np.array([value])), [whole[place]])


def test_every_primitive_is_either_allowed_or_refused() -> None:
    """A new primitive is refused until somebody says that it is elementwise, or reduces."""
    elementwise = {
        *("exp", "log", "tanh", "sqrt", "negative", "add", "subtract", "multiply", "divide"),
        *("power", "less", "less_equal", "equal", "where", "stop_gradient", "astype"),
        *("erf", "sin", "cos", "floor"),
    }
    assert set(EVERY) & ALLOWED == elementwise | {"sum", "max"}
    assert ALLOWED - set(EVERY) == {"constant", "extent"}
