"""A loop of many steps, compiled by a Keras backend; used by keras_probe.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from two_paths import Arrays, worst

from harness.runtime.backend import Backend


def long_loop(backend: Backend) -> dict[str, float]:
    """Return the error of a compiled loop of 40 steps and of its derivative, in each direction.

    Each state is half of the previous state plus the input of the step."""
    backend.use("cpu", "float64")
    add, multiply = (backend.primitives[op] for op in ("add", "multiply"))
    given = np.random.default_rng(0).normal(size=(40, 3))
    x, half = backend.tensor(given), backend.tensor(np.array(0.5))
    weights = 0.5 ** np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    found = {}
    for reverse in (False, True):

        def step(carries: Any, slices: Any) -> Any:
            after = add(multiply(half, carries[0]), slices[0])
            return [after], [after, multiply(after, after)]

        def summed(variables: Arrays, _: Arrays, reverse: bool = reverse) -> Arrays:
            start = [multiply(half, variables["x"][0] * 0)]
            last, (states, squares) = backend.scan(step, start, [variables["x"]], reverse)
            scalar = backend.primitives["sum"](squares, axis=(0, 1), keepdims=False)
            return {"last": last[0], "states": states, "scalar": scalar}

        differentiated = backend.value_and_gradient(summed)

        def around(carried: Arrays, fixed: Arrays, batch: Arrays) -> Any:
            results, gradients = differentiated(fixed, {})  # noqa: B023 (is called here)
            return {}, {**results, "gradient": gradients["x"]}

        _, results = backend.advance(around)({}, {"x": x}, {})
        shares = np.triu(weights) if reverse else np.tril(weights)
        states = shares @ given
        wanted = {
            "states": states,
            "last": states[0 if reverse else -1],
            "scalar": (states**2).sum(),
            "gradient": 2 * shares.T @ states,
        }
        got = {n: backend.numpy(t) for n, t in results.items()}
        found["reverse" if reverse else "forward"] = worst(got, wanted)
    return found
