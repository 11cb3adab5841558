"""Backends whose framework computes lazily or builds graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from window_cases import WINDOWS

from harness.backends.numpy.primitives import PRIMITIVES
from harness.program.primitives import EVERY
from harness.runtime.deferred import GraphBackend, LazyBackend
from harness.runtime.probe import every_primitive


class Lazy(LazyBackend):
    name, primitives = "lazy", PRIMITIVES

    def __init__(self) -> None:
        self.evaluated: list[list[Any]] = []

    def tensor(self, array: Any) -> Any:
        return array

    def evaluate(self, tensors: Sequence[Any]) -> Sequence[Any]:
        self.evaluated.append([*tensors])
        return [tensor + 0.0 for tensor in tensors]


def test_the_results_of_a_compiled_function_are_computed_together() -> None:
    backend = Lazy()
    one, two = np.ones(2), np.ones(3)
    function = backend.compile(lambda variables, constants: {"a": variables["x"], "b": two})
    assert function({"x": one}, {}).keys() == {"a", "b"}
    step = backend.advance(lambda carried, fixed, batch: (carried, {"loss": two}))
    carried, results = step({"x": one}, {}, {})
    assert (carried.keys(), results.keys()) == ({"x"}, {"loss"})
    assert [len(tensors) for tensors in backend.evaluated] == [2, 2]


class Graph(GraphBackend):
    """Nodes are functions from the arrays of the inputs to an array."""

    name, kernels = "graph", {}

    def __init__(self) -> None:
        self.built = 0
        self.kernels = {op: self._kernel(op) for op in PRIMITIVES}

    def _kernel(self, op: str) -> Any:
        def kernel(*operands: Any, **attributes: Any) -> Any:
            nodes = operands[0] if op == "concat" else operands

            def run(inputs: Any) -> Any:
                values = [node(inputs) for node in nodes]
                return PRIMITIVES[op](*([values] if op == "concat" else values), **attributes)

            return run

        return kernel

    def placeholder(self, array: Any) -> Any:
        def node(inputs: Any) -> Any:
            return inputs[node]

        return node

    def constant(self, array: Any) -> Any:
        return lambda inputs: array

    def build(self, inputs: Any, outputs: Any) -> Any:
        self.built += 1

        def run(arrays: Any) -> Any:
            values = dict(zip(inputs, arrays, strict=True))
            return [output(values) for output in outputs]

        return run


def drawn(builder: Any, value: int) -> Any:
    type_ = builder.types[value]
    shape = tuple(dim.constant for dim in type_.shape)
    if type_.kind == "float":
        return np.random.default_rng(value).uniform(0.5, 2.0, shape)
    return np.ones(shape, "bool" if type_.kind == "bool" else "int64")


BUILDER = every_primitive(EVERY)


def numbers(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(numbers, value))
    return getattr(value, "constant", value)


@pytest.mark.parametrize("node", BUILDER.nodes, ids=lambda node: node.op)
def test_a_traced_primitive_has_the_right_shape_and_values(node: Any) -> None:
    backend = Graph()
    attributes = {name: numbers(value) for name, value in node.attributes.items()}
    if node.op in ("astype", "one_hot"):
        attributes["dtype"] = "float64"
    arrays = {str(n): drawn(BUILDER, value) for n, value in enumerate(node.inputs)}
    operands = [[*arrays.values()]] if node.op == "concat" else [*arrays.values()]
    expected = PRIMITIVES[node.op](*operands, **attributes)
    shapes: list[Any] = []

    def call(variables: Any, constants: Any) -> Any:
        symbols = [*variables.values()]
        made = backend.primitives[node.op](
            *([symbols] if node.op == "concat" else symbols), **attributes
        )
        shapes.append(made.shape)
        return {"made": made}

    found = backend.compile(call)(arrays, {})["made"]
    np.testing.assert_array_equal(found, expected)
    assert shapes == [np.shape(expected)]
    np.testing.assert_array_equal(backend.primitives[node.op](*operands, **attributes), expected)


@pytest.mark.parametrize(("op", "operands", "attributes"), WINDOWS[:3])
def test_windows_are_traced(op: str, operands: Any, attributes: Any) -> None:
    backend = Graph()
    found = backend.compile(
        lambda variables, _: {"y": backend.primitives[op](variables["x"], **attributes)}
    )({"x": operands[0]}, {})["y"]
    np.testing.assert_allclose(found, PRIMITIVES[op](*operands, **attributes))


def test_a_graph_is_built_once_for_each_set_of_shapes() -> None:
    backend = Graph()
    add = backend.primitives["add"]
    function = backend.compile(
        lambda v, c: {"y": add(v["x"], np.ones(2)), "x": v["x"], "c": c["z"]}
    )
    for x in ([1.0, 2.0], [3.0, 4.0]):
        results = function({"x": np.array(x)}, {"z": np.zeros(1)})
        assert results["y"].tolist() == [x[0] + 1, x[1] + 1]
        assert results["x"].tolist() == x
    assert backend.built == 1
    function({"x": np.ones((3, 2))}, {"z": np.zeros(1)})
    assert backend.built == 2
    for _ in range(2):
        add(np.ones(2), np.ones(2))
    assert backend.built == 3


def test_a_function_without_results_builds_no_graph() -> None:
    """Such as a training step of a model without parameters."""
    backend = Graph()
    assert backend.compile(lambda v, c: {})({"x": np.zeros(2)}, {}) == {}
    assert backend.built == 0


def test_a_traced_function_may_call_another() -> None:
    backend = Graph()
    inner = backend.compile(lambda v, c: {"y": backend.primitives["exp"](v["x"])})
    outer = backend.compile(lambda v, c: {"z": inner(v, c)["y"]})
    assert outer({"x": np.zeros(2)}, {})["z"].tolist() == [1.0, 1.0]
    assert backend.built == 1
