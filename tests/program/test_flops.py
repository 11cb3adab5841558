"""Operations counted by hand."""

from __future__ import annotations

import pytest
from golden.tiny import tiny

from harness.program.dims import Dim
from harness.program.flops import REDUCING, Flops, count
from harness.program.ir import Node, Type
from harness.program.primitives import ELEMENTWISE, EVERY

SIZES = {"m": 3, "k": 5, "n": 7}
M, K, N = (Dim.of(name) for name in SIZES)
TYPES = {0: Type((M, K)), 1: Type((K, N)), 2: Type((M, N)), 3: Type((N,)), 4: Type((M, K, N))}


def one(op: str, inputs: tuple[int, ...], output: int, **attributes: object) -> Flops:
    return count([Node(op, inputs, (output,), attributes)], TYPES, SIZES)


def test_each_kind_of_operation() -> None:
    assert one("matmul", (0, 1), 2) == Flops(products=2 * 3 * 5 * 7)
    assert one("tensordot", (4, 0), 3, axes=((0, 1), (0, 1))) == Flops(products=2 * 7 * 15)
    assert one("add", (2, 3), 2) == Flops(elementwise=21)
    assert one("sum", (2,), 3, axis=(0,), keepdims=False) == Flops(elementwise=21)
    assert one("permute_dims", (2,), 2, axes=(1, 0)) == Flops()


def test_every_primitive_is_counted_or_moves_data() -> None:
    moving = {"permute_dims", "broadcast_to", "expand_dims", "squeeze", "concat", "slice", "flip"}
    moving |= {"take", "take_along_axis", "one_hot", "astype", "stop_gradient", "arange", "reshape"}
    moving |= {"windows", "argsort"}
    products = {"matmul", "tensordot"}
    groups = (moving, products, ELEMENTWISE, REDUCING)
    assert set().union(*groups) == set(EVERY)
    assert sum(map(len, groups)) == len(EVERY)


def test_sums_and_multiples() -> None:
    a, b = Flops(10, 1), Flops(5, 2)
    assert a + b == Flops(15, 3)
    assert a * 4 == Flops(40, 4)
    assert (a + b).total == 18


def test_a_dense_layer_by_hand() -> None:
    """1 * (x [3, 5, 2] @ W [2, 4] + b): 15 rows of 2 x 4 products and sums, then 4 of either."""
    case = tiny("layer", "dense")
    found = count(case.program.nodes, case.program.types, case.sizes)
    assert found == Flops(products=2 * 15 * 2 * 4, elementwise=2 * 15 * 4)


@pytest.mark.parametrize("time", [1, 5, 8])
def test_a_loops_body_counts_once_a_step(time: int) -> None:
    """h = tanh(x_t @ W + h @ U + b): two sums and a tanh of [3, 4] in each step."""
    case = tiny("layer", "simple_rnn")
    found = count(case.program.nodes, case.program.types, {**case.sizes, "time": time})
    assert found.products == time * (2 * 3 * 2 * 4 + 2 * 3 * 4 * 4)
    assert found.elementwise == time * 3 * (3 * 4)


def test_an_lstm_by_hand() -> None:
    case = tiny("layer", "lstm")
    found = count(case.program.nodes, case.program.types, case.sizes)
    assert found.products == 5 * 4 * (2 * 3 * 2 * 4 + 2 * 3 * 4 * 4)
    # Eight sums before gates, 3 sigmoids, 2 tanh, 3 products and a sum for the states.
    sigmoid = tiny("function", "sigmoid")
    sizes = {**sigmoid.sizes, "batch": 3, "time": 4}
    each = count(sigmoid.program.nodes, sigmoid.program.types, sizes).elementwise // 12
    assert 3 <= each <= 8
    assert found.elementwise == 5 * 12 * (8 + 3 * each + 2 + 4)
