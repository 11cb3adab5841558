"""numpy's kernels for an executor give what the walk gives, where numbers are special too."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from harness.backends.numpy import segments
from harness.backends.numpy.executor_kernels import NumpyKernels
from harness.backends.numpy.fused import FUSED
from harness.backends.numpy.primitives import PRIMITIVES, UFUNCS

KERNEL_CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("sigmoid", 1, {}),
    ("relu", 1, {}),
    ("clip", 1, {"low": 0.0, "high": 1.0}),
    ("clip_gradient", 2, {"low": 0.0, "high": 1.0}),
    ("where", 2, {}),
]


@pytest.mark.parametrize(("op", "count", "attributes"), KERNEL_CASES)
def test_kernels_have_the_walk_s_special_values(
    op: str, count: int, attributes: dict[str, Any]
) -> None:
    special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 800.0, -800.0])
    inputs = list(np.meshgrid(*[special] * count, indexing="ij"))
    if op == "where":
        inputs.insert(0, np.arange(inputs[0].size).reshape(inputs[0].shape) % 3 == 0)
    out = np.empty(inputs[0].shape)
    kernels = NumpyKernels("float64")
    with np.errstate(all="ignore"):
        kernels.run([kernels.table[op](out, *inputs, **attributes)])
        wanted = {**PRIMITIVES, **FUSED}[op](*inputs, **attributes)
    np.testing.assert_allclose(out, wanted, rtol=1e-15, atol=0)


def test_the_gradient_of_relu_stops_what_is_not_finite() -> None:
    g, y = np.meshgrid([np.nan, np.inf, 2.0], [0.0, 3.0, np.nan], indexing="ij")
    out = np.empty(g.shape)
    NumpyKernels("float64").table["relu_gradient"](out, g, y)()
    np.testing.assert_array_equal(out, FUSED["relu_gradient"](g, y))


@pytest.mark.parametrize("op", sorted(UFUNCS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_elementwise_work_on_what_lies_apart(op: str, dtype: str) -> None:
    """np.negative went wrong at strides of 4 and 8."""
    kernels, random = NumpyKernels(dtype), np.random.default_rng(0)
    ufunc = UFUNCS[op]
    for apart, results_apart in product((1, 2, 3, 4, 5, 8), repeat=2):
        given = [
            random.uniform(0.5, 2.0, (19, apart)).astype(dtype)[:, :1] for _ in range(ufunc.nin)
        ]
        dense = [np.ascontiguousarray(array) for array in given]
        wanted = kernels_made(kernels, op, dense, np.empty((19, 1), ufunc(*dense).dtype))
        out = np.zeros((19, results_apart), wanted.dtype)[:, :1]
        np.testing.assert_array_equal(kernels_made(kernels, op, given, out), wanted)


def kernels_made(kernels: NumpyKernels, op: str, given: Any, out: Any) -> Any:
    kernels.table[op](out, *given)()
    return out


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_maximum_of_rows_is_any_nan_in_them(order: Any) -> None:
    x = np.random.default_rng(0).normal(size=(5, 20)).astype("float64", order)
    x[1, 7], x[2, 3], x[3], x[4, :2] = np.nan, np.inf, -np.inf, (np.inf, np.nan)
    out = np.empty(5)
    NumpyKernels("float64").table["max"](out, x)()
    np.testing.assert_array_equal(out, x.max(1))


@pytest.mark.parametrize(
    ("rows", "count", "way"),
    [(6, 40, "_by_product"), (6, 20_000, "_by_runs"), (40_000, 40, "_by_present_index")],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_segments_keep_what_is_not_finite_to_themselves(
    rows: int, count: int, way: str, order: Any
) -> None:
    taken = min(segments.WAYS, key=lambda one: segments.WAYS[one](rows, count, 3))
    assert taken.__name__ == way
    random = np.random.default_rng(0)
    x, indices = random.normal(size=(count, 3)), random.integers(0, 6, count)
    indices[:2] = 4, 2
    out = np.empty((rows, 3), order=order)
    kernels = NumpyKernels("float64")
    call = kernels.table["segment_sum"](out, x, indices)
    for poison in (1.0, np.nan, np.inf):
        x[0, 1] = poison
        kernels.run([call])
        wanted = np.zeros_like(out)
        np.add.at(wanted, indices, x)
        np.testing.assert_allclose(out, wanted, rtol=1e-12, atol=1e-12)
        assert np.isfinite(out).sum() == out.size - (not np.isfinite(poison))


def test_the_sums_of_no_rows_are_zeros() -> None:
    none = np.zeros(0, np.int64)
    found = PRIMITIVES["segment_sum"](np.ones((0, 3), np.float32), none, rows=5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.zeros((5, 3)))
