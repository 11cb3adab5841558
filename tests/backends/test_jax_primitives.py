"""The primitives of the jax backend, and its loop, against the oracle's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from two_paths import check_primitive
from window_cases import WINDOWS

from harness.program.primitives import EVERY
from harness.runtime import plugins
from harness.runtime.backend import Backend

jax = pytest.importorskip("jax")
from jax_config import kept_config  # noqa: E402 (it imports jax)

X, Y = np.linspace(-2, 2, 12).reshape(3, 4), np.linspace(0.5, 3, 12).reshape(3, 4)
ORDERED = np.array([[2.0, np.nan, 1.0, 2.0, 0.0, -0.0], [np.nan, 3.0, np.inf, -np.inf, 3.0, 1.0]])
INDEX = np.array([[2, 0], [2, 2]])
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *((op, (Y,), {}) for op in ("exp", "log", "tanh", "sqrt", "negative", "stop_gradient")),
    *((op, (X, Y[0]), {}) for op in ("add", "subtract", "multiply", "divide")),
    *((op, (X, X[:, :1]), {}) for op in ("less", "less_equal", "equal")),
    *((op, (X,), {}) for op in ("erf", "sin", "cos", "floor")),
    ("arange", (), {"stop": 4}),
    ("cumulative_sum", (X,), {}),
    *(("argsort", (np.tile(ORDERED, times),), {}) for times in (1, 2)),
    ("reshape", (Y.reshape(2, 3, 2),), {"shape": (3, 4)}),
    ("power", (X, np.array(3.0)), {}),
    ("where", (X[:, 1:2] >= X, np.array(7.0), X), {}),
    ("astype", (INDEX,), {"dtype": "float32"}),
    ("permute_dims", (Y.reshape(2, 3, 2),), {"axes": (2, 0, 1)}),
    ("broadcast_to", (X[:, :1],), {"shape": (2, 3, 4)}),
    ("expand_dims", (X,), {"axis": 1}),
    ("squeeze", (X[:, None],), {"axis": 1}),
    ("concat", ([X, Y[:, :2]],), {"axis": 1}),
    ("slice", (X,), {"axis": 1, "start": 1, "stop": 3}),
    *WINDOWS,
    ("flip", (X,), {"axis": 1}),
    ("take", (X, INDEX), {}),
    ("take_along_axis", (X, np.array([[3, 0], [1, 1], [0, 2]])), {}),
    ("one_hot", (INDEX,), {"classes": 4, "dtype": "float32"}),
    ("segment_sum", (Y.reshape(2, 2, 3), INDEX), {"rows": 4}),
    *((op, (X,), {"axis": a, "keepdims": True}) for op in ("sum", "max") for a in ((), (0, 1))),
    ("matmul", (np.stack([X, Y]), Y.T), {}),
    ("tensordot", (X, Y), {"axes": ((0,), (0,))}),
]


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with kept_config():
        yield plugins.load("jax")


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES)
def test_a_primitive_is_the_oracles(
    backend: Backend, op: str, inputs: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    check_primitive(backend, op, inputs, attributes)


def test_every_primitive_is_there_and_tried(backend: Backend) -> None:
    assert set(backend.primitives) == set(EVERY) == {op for op, _, _ in CASES}


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_the_plain_loop(backend: Backend, reverse: bool) -> None:
    def step(carries: Any, slices: Any) -> tuple[list[Any], list[Any]]:
        return [carries[0] * 2 + slices[0]], [carries[0], slices[1]]

    backend.use("cpu", "float64")
    arguments = ([backend.tensor(Y[0])], [backend.tensor(X), backend.tensor(Y)], reverse)
    found = jax.tree.leaves(backend.scan(step, *arguments))
    wanted = jax.tree.leaves(Backend.scan(backend, step, *arguments))
    assert len(found) == 3
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("quick", [False, True])
def test_a_maximum_of_many_keeps_its_nan_and_has_the_gradient_of_the_others(
    backend: Backend, quick: bool
) -> None:
    backend.use("cpu", "float32")
    backend.quick = quick
    x = np.random.default_rng(0).normal(size=(100, 100)).astype("float32")
    x[::2, 7] = np.nan

    def most(x: Any) -> Any:
        return backend.primitives["max"](x, axis=(1,), keepdims=False)

    found = backend.compile(most)(backend.tensor(x))
    np.testing.assert_array_equal(backend.numpy(found), x.max(1))
    slopes = backend.compile(jax.grad(lambda x: jax.numpy.sum(most(x))))(backend.tensor(x))
    np.testing.assert_array_equal(backend.numpy(slopes), x == x.max(1)[:, None])
