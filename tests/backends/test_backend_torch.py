"""The torch backend: its table, its gradients, and the way of an array in and out."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from two_paths import by_oracle, check_primitive, draw, worst
from window_cases import WINDOWS

from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.program.primitives import EVERY
from harness.program.serial import encoded
from harness.runtime.backend import Backend
from harness.runtime.plugins import load
from harness.runtime.service import SessionService
from harness.runtime.session import make_session

torch = pytest.importorskip("torch")

SIZES = {"vocab": 11, "factors": 5, "hidden": 7, "characters": 10}


@pytest.fixture(scope="module")
def backend() -> Backend:
    return load("torch")


@pytest.mark.parametrize("model", lesson6())
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-14), ("float32", 4e-6)])
@pytest.mark.parametrize("path", ["native", "equations", "derived"])
def test_lesson_6_agrees_with_the_oracle(
    backend: Backend, model: str, dtype: str, limit: float, path: str
) -> None:
    spec, free = load_spec(model), {"batch": 3, "time": 4}
    sizes = {n: SIZES[n] for n in spec.model.sizes}
    program, inference = spec.program(**sizes), spec.program("inference", **sizes)
    given = draw(program, free)
    backend.use("cpu", dtype)
    session = make_session(backend, program, inference, path=path, dtype=dtype, rule=spec.update)
    session.load(given["parameters"], given["statistics"])
    batch = (given["inputs"], given["state"], given["targets"])
    results, gradients = session.gradients("training", *batch)
    wanted = by_oracle(program, given, free)
    found = {n: a for n, a in {**results, **gradients}.items() if n in wanted}
    assert {str(a.dtype) for a in found.values()} == {dtype}
    assert worst(found, wanted) < limit


@pytest.mark.parametrize(("path", "automatic"), [("native", True), ("derived", False)])
def test_open_says_whether_torch_makes_the_gradient(
    backend: Backend, path: str, automatic: bool
) -> None:
    spec = load_spec("lesson6/three_char")
    programs = (encoded(spec.program()), encoded(spec.program("inference")))
    assert SessionService(backend).open(*programs, path=path)["automatic"] is automatic


X, Y = np.linspace(-2, 2, 12).reshape(3, 4), np.linspace(0.5, 3, 12).reshape(3, 4)
ORDERED = np.array([[2.0, np.nan, 1.0, 2.0, 0.0, -0.0], [np.nan, 3.0, np.inf, -np.inf, 3.0, 1.0]])
INDEX, ALONG = np.array([[2, 0], [2, 2]]), np.array([[3, 0], [1, 1], [0, 2]])
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *((op, (X,), {}) for op in ("exp", "tanh", "negative", "stop_gradient")),
    *((op, (Y,), {}) for op in ("log", "sqrt")),
    *((op, (X, Y[0]), {}) for op in ("add", "subtract", "multiply", "divide")),
    ("power", (X, np.array(3.0)), {}),
    *((op, (X, X[:, :1]), {}) for op in ("less", "less_equal", "equal")),
    ("where", (X[:, 1:2] >= X, np.array(7.0), X), {}),
    ("astype", (X < 0,), {"dtype": "float32"}),
    ("astype", (INDEX,), {"dtype": "float64"}),
    ("permute_dims", (Y.reshape(2, 3, 2),), {"axes": (2, 0, 1)}),
    ("broadcast_to", (X[:, :1],), {"shape": (2, 3, 4)}),
    ("broadcast_to", (np.array(2.0),), {"shape": (2, 3)}),
    ("expand_dims", (X,), {"axis": 1}),
    ("squeeze", (X[:, None],), {"axis": 1}),
    ("concat", ([X, Y[:, :2]],), {"axis": 1}),
    ("slice", (X,), {"axis": 1, "start": 1, "stop": 3}),
    ("slice", (X,), {"axis": 0, "start": 2, "stop": 2}),
    *((op, (X,), {}) for op in ("erf", "sin", "cos", "floor")),
    ("arange", (), {"stop": 4}),
    ("reshape", (Y.reshape(2, 3, 2),), {"shape": (3, 4)}),
    ("reshape", (Y.reshape(2, 3, 2).transpose(1, 0, 2),), {"shape": (3, 4)}),
    *WINDOWS,
    ("cumulative_sum", (X,), {}),
    ("argsort", (ORDERED,), {}),
    ("take_along_axis", (X, np.array([[1, 1, 0], [0, 2, 3], [2, 0, 2]])), {}),
    ("flip", (X,), {"axis": 1}),
    ("take", (X, INDEX), {}),
    ("take", (X[:, 0], np.array(1)), {}),
    ("take_along_axis", (X, ALONG), {}),
    ("one_hot", (INDEX,), {"classes": 4, "dtype": "float32"}),
    ("segment_sum", (Y.reshape(2, 2, 3), INDEX), {"rows": 4}),
    *(
        (op, (X,), {"axis": a, "keepdims": k})
        for op in ("sum", "max")
        for a in ((), (0,), (0, 1))
        for k in (False, True)
    ),
    ("matmul", (X, Y.T), {}),
    ("matmul", (np.stack([X, Y]), Y.T), {}),
    ("tensordot", (X, Y), {"axes": ((0,), (0,))}),
    ("tensordot", (X, Y), {"axes": ((0, 1), (0, 1))}),
    ("tensordot", (X[0], Y[1]), {"axes": ((), ())}),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_primitive_is_the_oracles(
    backend: Backend, op: str, inputs: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    check_primitive(backend, op, inputs, attributes)


def test_every_primitive_is_there_and_tried(backend: Backend) -> None:
    assert set(backend.primitives) == set(EVERY) == {op for op, _, _ in CASES}


def test_an_array_and_its_tensor_share_no_memory(backend: Backend) -> None:
    array = np.arange(3.0)
    tensor = backend.tensor(array)
    array += 1
    kept = backend.numpy(tensor)
    tensor += 1
    assert kept.tolist() == [0, 1, 2]
    assert backend.numpy(tensor).tolist() == [1, 2, 3]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_a_tensor_keeps_dtype_and_shape(backend: Backend, dtype: str) -> None:
    for array in (np.ones((2, 3), dtype)[::-1], np.ones((), dtype)):
        found = backend.numpy(backend.tensor(array))
        assert (found.dtype, found.shape) == (array.dtype, array.shape)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_the_plain_loop(backend: Backend, reverse: bool) -> None:
    def step(carries: Any, slices: Any) -> tuple[list[Any], list[Any]]:
        return [carries[0] * 2 + slices[0]], [carries[0], slices[1]]

    arguments = ([backend.tensor(Y[0])], [backend.tensor(X), backend.tensor(Y)], reverse)
    (last,), stacked = backend.scan(step, *arguments)
    (wanted,), columns = Backend.scan(backend, step, *arguments)
    assert torch.equal(last, wanted)
    assert all(torch.equal(a, b) for a, b in zip(stacked, columns, strict=True))


def test_gradients_of_what_the_result_does_not_depend_on_are_zeros(backend: Backend) -> None:
    used, unused = backend.tensor(X), backend.tensor(Y)
    differentiate = backend.value_and_gradient
    for scalar in (lambda v: (v["used"] ** 2).sum(), lambda v: backend.tensor(np.array(1.0))):
        function = differentiate(lambda v, c, scalar=scalar: {"scalar": scalar(v)})
        assert function is not None
        results, gradients = function({"used": used, "unused": unused}, {})
        assert not results["scalar"].requires_grad
        assert not gradients["unused"].any()
        assert gradients["unused"].shape == unused.shape
    assert not used.requires_grad


def test_no_gradient_flows_through_stop_gradient(backend: Backend) -> None:
    stop = backend.primitives["stop_gradient"]
    function = backend.value_and_gradient(lambda v, c: {"scalar": (v["x"] * stop(v["x"])).sum()})
    assert function is not None
    _, gradients = function({"x": backend.tensor(X)}, {})
    assert np.array_equal(backend.numpy(gradients["x"]), X)


def test_nothing_records_a_graph_outside_of_a_gradient(backend: Backend) -> None:
    leaf = torch.ones(3, requires_grad=True)
    result = backend.compile(lambda v, c: {"y": v["x"] * 2})({"x": leaf}, {})["y"]
    assert not result.requires_grad


def test_versions_and_devices_are_named(backend: Backend) -> None:
    assert backend.versions()["torch"] == torch.__version__
    assert ("cuda" in backend.devices()) == torch.cuda.is_available()
    assert backend.devices()[0] == "cpu"


def test_the_module_is_imported_without_the_framework() -> None:
    code = "import sys, harness.backends.torch.backend; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((2, 3, 1, 1, 4), (5, 4, 6)),
        ((2, 3, 5, 1, 4), (5, 4, 6)),
        ((2, 5, 3, 4), (2, 1, 4, 6)),
        ((5, 2, 3, 4), (1, 2, 4, 6)),
        ((2, 3, 4), (1, 4, 6)),
        ((3, 4), (5, 4, 6)),
        ((2, 3, 4), (4, 6)),
        ((1, 3, 4), (2, 4, 6)),
    ],
)
def test_rows_of_a_product_are_those_of_torch(
    left: tuple[int, ...], right: tuple[int, ...], backend: Backend
) -> None:
    """With the gradients of both sides."""
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True)
        for s in (left, right)
    )
    found, expected = backend.primitives["matmul"](a, b), torch.matmul(a, b)
    cotangent = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    both = (torch.autograd.grad(y, (a, b), cotangent) for y in (found, expected))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
