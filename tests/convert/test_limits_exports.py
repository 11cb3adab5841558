"""The exported code of a limit such as relu6 has the spec's derivative at both limits: 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

LIMITS = {"low": 0.0, "high": 6.0}
X = np.array([-1.0, 0.0, 3.0, 6.0, 7.0, np.nan], np.float32)
RESULTS = [0.0, 0.0, 3.0, 6.0, 6.0, np.nan]


def check(results: Any, derivatives: Any) -> None:
    np.testing.assert_array_equal(np.asarray(results), RESULTS)
    np.testing.assert_array_equal(np.asarray(derivatives)[:5], [0, 0, 1, 0, 0])


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    from harness.backends.torch.primitives_export import TEMPLATES

    text = str(TEMPLATES["clip"]).replace("%0", "x").format(**LIMITS)
    x = torch.tensor(X, requires_grad=True)
    results = eval(text, {"torch": torch, "nn": torch.nn, "x": x})
    results.sum().backward()
    check(results.detach(), x.grad)


def test_jax() -> None:
    jax = pytest.importorskip("jax")
    from harness.backends.jax.primitives_export import TEMPLATES

    text = str(TEMPLATES["clip"]).replace("%0", "x").format(**LIMITS)
    function = eval(f"lambda x: {text}", {"jax": jax, "jnp": jax.numpy})
    check(function(X), jax.vmap(jax.grad(function))(X))


def test_keras() -> None:
    keras = pytest.importorskip("keras")
    tensorflow = pytest.importorskip("tensorflow")
    from harness.backends.keras.model import _idioms
    from harness.backends.keras.primitives_export import CALLS

    text = CALLS["clip"].format("x", **LIMITS)
    written = eval(f"lambda x: {text}", {"ops": keras.ops})
    for function in (written, lambda x: _idioms(keras.ops)["clip"](x, **LIMITS)):
        x = tensorflow.Variable(X)
        with tensorflow.GradientTape() as tape:
            results = function(x)
        check(results, tape.gradient(results, x))
