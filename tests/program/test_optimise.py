"""Each rule of the passes does what it says, on a few nodes made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import numpy as np
import pytest

from harness.backends.numpy.primitives import PRIMITIVES
from harness.program.builder import Builder
from harness.program.dims import Dim
from harness.program.flops import count
from harness.program.fused import FUSED
from harness.program.ir import Node, Type
from harness.program.passes import optimise
from harness.runtime.interpreter import Interpreter

SIZES = {"batch": 6, "time": 5, "units": 4, "rows": 3}
BATCH, TIME, UNITS, ROWS = (Dim.of(name) for name in SIZES)


class Small:
    """A program made by hand: values that come in, and nodes that are emitted."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.emit = self.builder.emit
        self.number = self.builder.constant

    def given(self, *shape: Dim, index: Dim | None = None) -> int:
        kind: Any = "index" if index is not None else "float"
        return self.builder.value(Type(shape, kind, index))

    def optimised(self, *wanted: int, fused: Iterable[str] = (), **sizes: int) -> list[Node]:
        nodes = optimise(self.builder.nodes, wanted, self.builder, {**SIZES, **sizes}, fused)
        made = [output for node in nodes for output in node.outputs]
        assert len(set(made)) == len(made)
        assert set(wanted) <= set(made)
        return list(nodes)

    def same(self, *wanted: int, **sizes: int) -> list[Node]:
        """The optimised nodes, which give what those that were emitted give."""
        numbers, generator = {**SIZES, **sizes}, np.random.default_rng(3)
        given = self.builder.types.keys() - {o for n in self.builder.nodes for o in n.outputs}
        shapes = {v: [d.resolve(numbers) for d in self.builder.types[v].shape] for v in given}
        env = {v: generator.standard_normal(shape) for v, shape in sorted(shapes.items())}
        before = tuple(self.builder.nodes)
        after = self.optimised(*wanted, **sizes)
        walker = Interpreter(PRIMITIVES, numbers, "float64", np.float64)
        expected, found = (walker.run(nodes, dict(env)) for nodes in (before, after))
        for value in wanted:
            np.testing.assert_allclose(found[value], expected[value], rtol=1e-12, atol=1e-12)
        return after

    def ops(self, *wanted: int, **options: Any) -> list[str]:
        return [node.op for node in self.optimised(*wanted, **options) if node.op != "constant"]


SAME: dict[str, Callable[[Small, int], int]] = {
    "times one": lambda s, x: s.emit("multiply", s.number(1), x),
    "plus zeros": lambda s, x: s.emit("add", x, s.builder.zeros((BATCH, UNITS))),
    "minus zero": lambda s, x: s.emit("subtract", x, s.number(0)),
    "over one": lambda s, x: s.emit("divide", x, s.number(1)),
    "to the first power": lambda s, x: s.emit("power", x, s.number(1)),
    "negative twice": lambda s, x: s.emit("negative", s.emit("negative", x)),
    "permuted back": lambda s, x: s.emit(
        "permute_dims", s.emit("permute_dims", x, axes=(1, 0)), axes=(1, 0)
    ),
    "squeezed back": lambda s, x: s.emit("squeeze", s.emit("expand_dims", x, axis=1), axis=1),
    "flipped back": lambda s, x: s.emit("flip", s.emit("flip", x, axis=0), axis=0),
    "all of it": lambda s, x: s.emit("slice", x, axis=1, start=Dim(0), stop=UNITS),
    "its own shape": lambda s, x: s.emit("broadcast_to", x, shape=(BATCH, UNITS)),
    "of two parts": lambda s, x: s.emit(
        "concat",
        s.emit("slice", x, axis=1, start=Dim(0), stop=Dim(1)),
        s.emit("slice", x, axis=1, start=Dim(1), stop=UNITS),
        axis=1,
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_what_changes_nothing_is_left_out(name: str) -> None:
    small = Small()
    x = small.given(BATCH, UNITS)
    assert small.ops(small.emit("exp", SAME[name](small, x))) == ["exp"]


def test_known_numbers_are_computed() -> None:
    small = Small()
    x = small.given(UNITS)
    rows = small.emit("extent", dims=(BATCH, TIME))
    half = small.emit("divide", rows, small.emit("add", rows, rows))
    (constant, product) = small.optimised(small.emit("multiply", x, half))
    assert constant.attributes == {"value": 0.5}
    assert product.op == "multiply"


def test_zero_and_minus_zero_are_two_numbers() -> None:
    small = Small()
    x = small.given(UNITS)
    wanted = [small.emit("power", x, small.number(zero)) for zero in (0.0, -0.0)]
    assert small.ops(*wanted) == ["power", "power"]


def test_slices_of_one_entry_that_meet_all_of_another_are_left_alone() -> None:
    small = Small()
    gates, table = small.given(BATCH, TIME, Dim(2)), small.given(BATCH, Dim(1), UNITS)
    wanted = [
        small.emit(
            "multiply",
            small.emit("slice", gates, axis=2, start=Dim(gate), stop=Dim(gate + 1)),
            table,
        )
        for gate in range(2)
    ]
    assert sorted(n.op for n in small.same(*wanted)) == ["multiply"] * 2 + ["slice"] * 2


def test_common_subexpressions_are_one() -> None:
    small = Small()
    a, b = small.given(BATCH, UNITS), small.given(UNITS)
    sums = [small.emit("exp", small.emit("add", *pair)) for pair in ((a, b), (b, a))]
    assert small.ops(small.emit("multiply", *sums)) == ["add", "exp", "multiply"]


def test_wanted_values_keep_their_numbers() -> None:
    """Also where two are the same, or one is what came in."""
    small = Small()
    x = small.given(BATCH, UNITS)
    wanted = [small.emit("multiply", small.number(1), x)]
    wanted += [small.emit("exp", value) for value in (x, wanted[0])]
    assert sorted(small.ops(*wanted)) == ["exp", "permute_dims", "permute_dims"]


def test_sums_take_no_factors_and_signs() -> None:
    small = Small()
    x = small.given(BATCH, UNITS)
    scaled = small.emit("negative", small.emit("multiply", small.number(0.3), x))
    nodes = small.optimised(small.emit("sum", scaled, axis=(0,), keepdims=False))
    assert count(nodes, small.builder.types, SIZES).elementwise == 6 * 4 + 4


def test_a_blend_needs_one_product() -> None:
    small = Small()
    z, a, b = (small.given(BATCH, UNITS) for _ in range(3))
    rest = small.emit("subtract", small.number(1), z)
    both = small.emit("multiply", z, a), small.emit("multiply", rest, b)
    assert small.ops(small.emit("add", *both)) == ["subtract", "multiply", "add"]


def test_a_mean_of_chosen_rows_counts_them() -> None:
    small = Small()
    table, indices = small.given(ROWS, UNITS), small.given(BATCH, TIME, index=ROWS)
    rows = small.emit("take", table, indices)
    ops = small.ops(small.emit("sum", rows, axis=(0, 1), keepdims=False))
    assert "take" not in ops
    assert ops.count("matmul") == 1


def test_sums_with_products_are_one_operation() -> None:
    small = Small()
    a, b, c = small.given(BATCH, UNITS), small.given(UNITS, ROWS), small.given(ROWS)
    total = small.emit("add", small.emit("matmul", a, b), c)
    assert small.ops(total, fused=FUSED) == ["addmm"]


def test_only_the_larger_of_x_and_zero_is_a_relu() -> None:
    small = Small()
    x, zero = small.given(BATCH), small.number(0)
    larger = small.emit("where", small.emit("less_equal", x, zero), zero, x)
    smaller = small.emit("where", small.emit("less_equal", zero, x), zero, x)
    assert small.ops(larger, fused=FUSED) == ["relu"]
    assert small.ops(smaller, fused=FUSED) == ["less_equal", "where"]


@pytest.mark.parametrize("op", ["add", "subtract"])
def test_a_weighted_one_hot_is_scattered(op: str) -> None:
    small = Small()
    x, weight = small.given(BATCH, ROWS), small.given(BATCH, Dim(1))
    hot = small.emit("one_hot", small.given(BATCH, index=ROWS), classes=ROWS)
    total = small.emit(op, x, small.emit("multiply", weight, hot))
    signs = ["negative"] if op == "subtract" else []
    assert sorted(small.ops(total, fused=FUSED)) == ["expand_dims", *signs, "scatter_add"]


def test_a_factor_of_all_rows_goes_where_there_are_fewer() -> None:
    """As that of a mean, in the gradient of a loss of probabilities."""
    small = Small()
    a, b, row = small.given(BATCH, ROWS), small.given(BATCH, ROWS), small.given(BATCH, Dim(1))
    weight = small.given(ROWS, Dim(2))
    scaled = small.emit("multiply", small.number(0.3), a)
    rows = small.emit("add", scaled, small.emit("multiply", row, b))
    wanted = small.emit("matmul", rows, weight), small.emit("sum", rows, axis=(0,), keepdims=False)
    nodes = small.optimised(*wanted, batch=50)
    sizes = {**SIZES, "batch": 50}
    wide = [n for n in nodes if n.op == "multiply" and count([n], small.builder.types, sizes)]
    shapes = [tuple(d.resolve(sizes) for d in small.builder.types[n.output].shape) for n in wide]
    assert sorted(shapes) == [(3,), (3, 2), (50, 1), (50, 3)]


def test_products_that_go_the_same_way_are_neighbours() -> None:
    small = Small()
    x = small.given(BATCH, UNITS)
    products = [small.emit("matmul", x, small.given(UNITS, UNITS)) for _ in range(3)]
    wanted = [small.emit(op, p) for op, p in zip(("exp", "tanh", "exp"), products, strict=True)]
    ops = small.ops(*wanted, batch=64)
    assert sorted(op for op in ops if op != "slice") == ["concat", "exp", "matmul", "tanh"]


def biased(small: Small, rows: int) -> int:
    product = small.emit("matmul", rows, small.given(small.builder.types[rows].shape[-1], UNITS))
    return small.emit("add", product, small.given(UNITS))


def test_a_bias_is_a_row_of_the_weight_that_narrow_rows_are_multiplied_with() -> None:
    small = Small()
    rows = small.emit("permute_dims", small.given(BATCH, TIME, ROWS), axes=(1, 0, 2))
    ops = [node.op for node in small.same(biased(small, rows), units=64)]
    assert ops.count("concat") == 2
    assert "add" not in ops


@pytest.mark.parametrize("units", [3, 64])
def test_a_bias_stays_a_bias_where_a_copy_of_the_rows_costs_more(units: int) -> None:
    """Of what is wide; of a matrix, which may be a weight; of what is made and need not be."""
    small = Small()
    if units == 64:
        rows = [small.given(BATCH, ROWS), small.emit("exp", small.given(BATCH, TIME, ROWS))]
    else:
        rows = [small.given(BATCH, TIME, ROWS)]
    wanted = [biased(small, r) for r in rows]
    ops = [node.op for node in small.same(*wanted, units=units)]
    assert ops.count("add") == len(wanted)


def test_a_product_that_is_needed_without_its_bias_is_left() -> None:
    small = Small()
    product = small.emit("matmul", small.given(BATCH, TIME, ROWS), small.given(ROWS, UNITS))
    total = small.emit("add", product, small.given(UNITS))
    ops = [node.op for node in small.same(total, small.emit("exp", product), units=64)]
    assert ops.count("matmul") == 1


def test_a_product_of_multiples_scales_once() -> None:
    """As the square of a scaled gradient."""
    small = Small()
    x = small.given(BATCH, UNITS)
    scaled = [small.emit("multiply", small.number(n), x) for n in (0.2, 0.5)]
    ops = [node.op for node in small.same(small.emit("multiply", *scaled))]
    assert sorted(ops) == ["constant", "multiply", "multiply"]


def test_a_product_of_multiples_keeps_factors_that_float32_has_not() -> None:
    small = Small()
    x = small.given(BATCH, UNITS)
    scaled = [small.emit("multiply", small.number(n), x) for n in (1e-30, 1e-25)]
    assert small.ops(small.emit("multiply", *scaled)) == ["multiply"] * 3


def test_nothing_is_left_of_a_gated_state_of_zeros() -> None:
    small = Small()
    zeros = small.builder.zeros((BATCH, UNITS))
    gated = small.emit("multiply", small.given(BATCH, UNITS), zeros)
    total = small.emit("matmul", gated, small.given(UNITS, ROWS))
    ops = [node.op for node in small.same(small.emit("exp", total))]
    assert ops == ["constant", "broadcast_to"]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((BATCH, TIME, Dim(1), Dim(1), UNITS), (ROWS, UNITS, BATCH)),
        ((BATCH, TIME, ROWS, Dim(1), UNITS), (ROWS, UNITS, TIME)),
        ((BATCH, ROWS, TIME, UNITS), (BATCH, Dim(1), UNITS, TIME)),
        ((ROWS, BATCH, TIME, UNITS), (Dim(1), BATCH, UNITS, TIME)),
        ((ROWS, BATCH, TIME, UNITS), (Dim(1), Dim(1), UNITS, TIME)),
    ],
    ids=["experts", "experts-again", "grouped", "leading", "one-matrix"],
)
def test_rows_that_share_a_matrix_are_one_product(
    left: tuple[Dim, ...], right: tuple[Dim, ...]
) -> None:
    small = Small()
    product = small.emit("matmul", small.given(*left), small.given(*right))
    (matmul,) = [n for n in small.same(small.emit("exp", product)) if n.op == "matmul"]
    shapes = [[d.resolve(SIZES) for d in small.builder.types[i].shape] for i in matmul.inputs]
    rows, matrices = (prod(shape[:-2]) for shape in shapes)
    assert rows in (1, matrices)


def test_products_of_two_batches_stay_as_they_are() -> None:
    small = Small()
    left, right = small.given(BATCH, TIME, UNITS), small.given(BATCH, UNITS, TIME)
    wide = small.given(Dim(1), TIME, UNITS)
    assert small.ops(small.emit("matmul", left, right)) == ["matmul"]
    assert small.ops(small.emit("matmul", wide, right)) == ["matmul"]
