"""Windows of axes: how many there are, their derivative, and every way of running them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from two_paths import check_primitive
from window_cases import IMAGE, WINDOWS, count

from harness.oracle import oracle
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.ir import Type
from harness.program.plan import Plan
from harness.program.windows import WindowedAxis
from harness.runtime.executor import Executor
from harness.runtime.plugins import load

HALF = Dim.of("half")


def axis(length: Dim, *others: int) -> WindowedAxis:
    return WindowedAxis(length, *map(Dim, others))


@pytest.mark.parametrize("length", [7, 8, 9, 12])
def test_a_count_is_that_of_the_windows_that_fit(length: int) -> None:
    for size, stride, dilation, padding, after in product(
        (1, 3), (1, 2, 3), (1, 2), (0, 1), (0, 2)
    ):
        given = (size, stride, dilation, padding, after)
        found = axis(Dim(length), *given).count()
        assert found == Dim(count(length, *given))
        rooms = axis(Dim(length), *given).room(found)
        assert min(room.constant for room in rooms) >= 0
        for wrong in (found - 1, found + 1):
            assert min(room.constant for room in axis(Dim(length), *given).room(wrong)) < 0


def test_a_multiple_of_the_stride_has_a_count_in_sizes() -> None:
    assert axis(HALF * 2, 3, 2, 1, 1, 1).count() == HALF
    assert axis(HALF * 2, 3, 2, 1, 0, 0).count() == HALF - 1
    assert axis(HALF * 4 + 1, 3, 2, 1, 0, 0).count() == HALF * 2
    assert axis(HALF, 3, 1, 2, 0, 0).count() == HALF - 4
    assert axis(HALF, 3, 2, 1, 1, 1).count() is None
    assert axis(HALF * 3, 3, 2, 1, 1, 1).count() is None


def test_each_is_the_transpose_of_the_other() -> None:
    """<windows(x), y> = <x, overlap_add(y)>, whatever x and y are."""
    tried = 0
    for op, (y,), attributes in WINDOWS:
        if op != "overlap_add":
            continue
        framing = {name: each for name, each in attributes.items() if name != "length"}
        counts = tuple(y.shape[a] for a in attributes["axes"])
        framed = oracle.TABLE["windows"](IMAGE, **framing, length=counts, lowest=False)
        added = oracle.TABLE["overlap_add"](y, **attributes)
        np.testing.assert_allclose(np.sum(framed * y), np.sum(IMAGE * added), rtol=1e-12)
        tried += 1
    assert tried == 9


@pytest.mark.parametrize("case", range(len(WINDOWS)))
def test_numpy_has_the_oracles_windows(case: int) -> None:
    check_primitive(load("numpy"), *WINDOWS[case])


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_an_executor_has_the_oracles_windows(backend: str) -> None:
    """By strides and in place, on values that lie in memory in another order too."""
    if backend == "torch":
        pytest.importorskip("torch")
        from harness.backends.torch.executor_kernels import TorchKernels

        kernels: Any = TorchKernels("float64", "cpu")
    else:
        from harness.backends.numpy.executor_kernels import NumpyKernels

        kernels = NumpyKernels("float64")
    loaded = load(backend)
    loaded.use("cpu", "float64")
    for op, (x,), attributes in WINDOWS:
        builder = Builder()
        last = tuple(range(1, x.ndim))
        given = builder.value(Type(tuple(map(Dim, (*x.shape[1:], x.shape[0])))))
        turned = builder.emit("permute_dims", given, axes=(x.ndim - 1, *range(x.ndim - 1)))
        made = builder.emit(op, turned, **_dims(attributes))
        result = builder.emit("multiply", made, builder.constant(2.0))
        nodes = tuple(builder.nodes)
        ends: Any = ({"x": given}, {"y": result}, {})
        plan = Plan("windows", builder.types, {}, "float64", nodes, *ends)
        tensor = loaded.tensor(np.transpose(x, (*last, 0)))
        wanted = 2 * oracle.TABLE[op](x, **attributes)
        run = Executor(plan, kernels)
        for _ in range(2):
            found = loaded.numpy(run({"x": tensor})["y"])
            np.testing.assert_allclose(found, wanted, rtol=1e-14, atol=1e-14)


def _dims(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as a program has them: sizes but for the numbers of axes."""
    return {
        name: tuple(map(Dim, each)) if name not in ("axes", "lowest") else each
        for name, each in attributes.items()
    }
