"""Split and merge, indices and conditions, slices by sizes, and functions, against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import SpecError, UsageError
from harness.oracle.case import Case
from harness.oracle.complex_step import ALLOWED, complex_step_gap
from harness.program.dims import Dim, bind, product
from harness.program.primitives import OFFERED, offers_needed
from harness.program.signature import check_room
from harness.runtime.executor.buffers import fresh
from harness.worker.remote import missing_requirement

Numpy = Callable[[Any, Any], Any]
STEPS = np.arange(3)
erf = np.vectorize(math.erf)

# Equations of z from x [batch 2, time 3, width 4] and i [batch, time] below 5 -> the same by numpy.
CASES: dict[str, Numpy] = {
    "z = merge(x, axes=[1, 2])": lambda x, i: x.reshape(2, 12),
    "z = merge(x, axes=[0, -2])": lambda x, i: x.reshape(6, 4),
    "z = merge(x, axes=[0, 1, 2])": lambda x, i: x.reshape(24),
    "z = split(x, axis=-1, sizes=[2, 2])[:, :, 1]": None,
    "z = permute_dims(split(merge(x, axes=[1, 2]), axis=1, sizes=[time, width]), axes=[0, 2, 1])": (
        lambda x, i: x.transpose(0, 2, 1)
    ),
    "z = x[:, None]": lambda x, i: x[:, None],
    "z = x[..., None, :]": lambda x, i: x[..., None, :],
    "z = x[..., :width - 1]": lambda x, i: x[..., :3],
    "z = x[:, -1:, 1:]": lambda x, i: x[:, -1:, 1:],
    "z = concat([x, x], axis=2)[..., width:]": lambda x, i: x,
    "z = concat([x, x], axis=2)[..., width]": lambda x, i: x[..., 0],
    "z = concat([x, x], axis=2)[:, -1, 2 * width - 1]": lambda x, i: x[:, -1, 3],
    "z = concat([x, x[..., :1]], axis=2)[:, :, -width]": lambda x, i: x[..., 1],
    "z = concat([x, x], axis=2)[..., ::2]": lambda x, i: np.concatenate([x, x], 2)[..., ::2],
    "z = concat([x, x], axis=2)[..., 1::2]": lambda x, i: np.concatenate([x, x], 2)[..., 1::2],
    "z = concat([x, x, x], axis=2)[..., 2::3]": lambda x, i: np.concatenate([x] * 3, 2)[..., 2::3],
    "z = concat([x, x, x], axis=2)[..., 1::3]": lambda x, i: np.concatenate([x] * 3, 2)[..., 1::3],
    "z = concat([x, x], axis=2)[..., :2:2]": lambda x, i: x[..., :1],
    "z = concat([x, x[..., :1]], axis=2)[..., ::2]": None,
    "z = concat([x, x], axis=2)[..., -width:]": lambda x, i: x,
    "z = where(arange(time)[:, None] < 2, x, 0)": lambda x, i: np.where(STEPS[:, None] < 2, x, 0),
    "z = astype(arange(time))": lambda x, i: STEPS.astype(float),
    "z = astype(arange(time)[None, :] <= arange(time)[:, None])": lambda x, i: np.tri(3),
    "z = astype(arange(time)[None, :] < arange(time)[:, None])": lambda x, i: np.tri(3, k=-1),
    "z = astype(i == 2)": lambda x, i: (i == 2) * 1.0,
    "z = astype(i != 2)": lambda x, i: (i != 2) * 1.0,
    "z = where((x != x[:, :1]) & (i[..., None] != vocab - 1), x, 9)": (
        lambda x, i: np.where((x != x[:, :1]) & (i[..., None] != 4), x, 9)
    ),
    "z = x @ x[0, 1]": lambda x, i: x @ x[0, 1],
    "z = x[0, :, 1] @ x": lambda x, i: x[0, :, 1] @ x,
    "z = x[0, :, 1] @ x[0]": lambda x, i: x[0, :, 1] @ x[0],
    "z = x[0, 0] @ x[1, 2] * x[0]": lambda x, i: x[0, 0] @ x[1, 2] * x[0],
    "z = astype(i > 2)": lambda x, i: (i > 2) * 1.0,
    "z = astype(i >= vocab - 3)": lambda x, i: (i >= 2) * 1.0,
    "z = astype((i < 2) == (x[..., 0] > 0.5))": lambda x, i: ((i < 2) == (x[..., 0] > 0.5)) * 1.0,
    "z = astype((i < 2) != (x[..., 0] > 0.5))": lambda x, i: ((i < 2) != (x[..., 0] > 0.5)) * 1.0,
    "z = astype(~(i < 2))": lambda x, i: (i >= 2) * 1.0,
    "z = astype((1 <= i) & (i < 3))": lambda x, i: ((i >= 1) & (i < 3)) * 1.0,
    "z = astype((i < 1) | (i > 3) | (i == 2))": lambda x, i: ((i < 1) | (i > 3) | (i == 2)) * 1.0,
    "z = astype((i[:, :, None] == arange(vocab)) & (x[:, :, :1] > 0))": (
        lambda x, i: ((i[:, :, None] == np.arange(5)) & (x[:, :, :1] > 0)) * 1.0
    ),
    "z = erf(x)": lambda x, i: erf(x),
    "z = sin(x) + cos(2 * x)": lambda x, i: np.sin(x) + np.cos(2 * x),
    "z = floor(3 * x)": lambda x, i: np.floor(3 * x),
    "z = var(x, axis=-1, keepdims=1)": lambda x, i: x.var(-1, keepdims=True),
    "z = var(x, axis=[0, 1])": lambda x, i: x.var((0, 1)),
    "z = abs(1 - x) + sign(x - 0.5)": lambda x, i: np.abs(1 - x) + np.sign(x - 0.5),
    "z = logsumexp(9 * x)": lambda x, i: np.log(np.exp(9 * x).sum(-1)),
    "z = elu(-x) + leaky_relu(-x)": lambda x, i: np.expm1(-x) - 0.01 * x,
    "z = softplus(x) + silu(x)": lambda x, i: np.log1p(np.exp(x)) + x / (1 + np.exp(-x)),
    "z = gelu(x)": lambda x, i: x * (0.5 + 0.5 * erf(x / np.sqrt(2))),
}  # fmt: skip
CASES = {equation: f for equation, f in CASES.items() if f is not None}


@pytest.mark.parametrize("equation", CASES)
def test_an_equation_gives_what_numpy_gives(equation: str) -> None:
    spec = tiny(
        [equation, "y = x + 0 * mean(z)"],
        inputs="  i: {shape: [batch, time], index: vocab}\n",
        loss="mean(squared_error(y, target)) + mean(take_along_axis(one_hot(i, vocab), i))",
    )
    program = spec.program("training")
    values = computed(program)
    given = {port.name: values[port.value] for port in (*program.inputs, *program.outputs)}
    expected = CASES[equation](given["x"], given["i"])
    assert given["z"].shape == expected.shape
    np.testing.assert_allclose(given["z"], expected, rtol=1e-13, atol=1e-13)


MOVES = [
    "y = x * permute_dims(split(merge(tanh(x), axes=[1, 2]), axis=1, sizes=[time, width])"
    "[:, :, ::-1], axes=[0, 1, 2])",
    "y = erf(x) * sin(x) + cos(x) * floor(3 * x)",
    "y = gelu(x) + gelu_tanh(x) * silu(x) - softplus(x) / (2 + elu(x) + leaky_relu(x))",
    "y = x * sum(merge(concat([x, -x], axis=2)[..., ::2], axes=[1, 2]) ** 2)",
    "y = abs(x) ** 1.5 * logsumexp(x)[..., None] * var(x, axis=[1, 2], keepdims=1)",
    "y = where((arange(time)[:, None] <= 1) | (x > 0.3), x ** 2, sin(x))",
]


@pytest.mark.parametrize("equation", MOVES)
def test_derivatives_are_those_of_the_complex_step(equation: str) -> None:
    case = Case(tiny([equation]), {}, 2, 3)
    assert 0 < complex_step_gap(case) <= ALLOWED


def test_products_of_sizes_are_sizes(wording: Wording) -> None:
    heads, head, time = (Dim.of(n) for n in ("heads", "head", "time"))
    both = heads * head
    assert str(both * 2 + 1) == "2*head*heads + 1"
    assert both == head * heads
    assert product([heads, head, Dim(2)]) == both * 2
    assert (heads + 1) * (head - 1) == both - heads + head - 1
    assert both.names == ("head", "heads")
    assert both.resolve({"heads": 3, "head": 5}) == 15
    assert both.substitute({"heads": Dim(4)}) == head * 4
    bound: dict[str, int] = {}
    bind("x", (time * heads,), [12], {"heads": 3}, bound)
    assert bound == {"time": 4}
    with wording.raises(UsageError, "1 ... 13"):
        bind("x", (time * heads,), [13], {"heads": 3}, {})
    with wording.raises(UsageError):
        bind("x", (time * heads,), [13], {}, {})
    with wording.raises(UsageError, "1 ... 9"):
        bind("x", (time * time,), [9], {}, {})


def test_sizes_do_not_grow_without_end(wording: Wording) -> None:
    with wording.raises(SpecError, "8 ... 9"):
        tiny(["y = x[..., :width]", f"z = arange({' * '.join(['width'] * 9)})"])


def test_arrays_that_are_too_long_for_a_slice_are_refused(wording: Wording) -> None:
    layer = "{place: {layer: learned_positions, context: 6}}"
    program = tiny(["y = place(x)"], layers=layer).program("training")
    assert program.room == (Dim(6) - Dim.of("time"),)
    check_room(program, {"batch": 2, "time": 6})
    with wording.raises(UsageError, "-time ... 6 ... 0 ... 7"):
        check_room(program, {"batch": 2, "time": 7})


def test_a_view_is_reshaped_without_a_copy_where_it_can_be() -> None:
    memory = np.arange(24.0)
    for shape, axes, wanted in (
        ((2, 3, 4), (0, 1, 2), (6, 4)),
        ((2, 3, 4), (0, 1, 2), (2, 1, 12)),
        ((6, 4), (1, 0), (2, 2, 6)),
        ((2, 12), (0, 1), (2, 3, 4)),
        ((24,), (0,), (1, 4, 6, 1)),
    ):
        view = fresh(shape).permute(axes)
        found = view.reshape(wanted)
        assert found is not None
        strides = [8 * s for s in view.strides]
        array = np.lib.stride_tricks.as_strided(memory, view.shape, strides)
        strides = [8 * s for s in found.strides]
        made = np.lib.stride_tricks.as_strided(memory, found.shape, strides)
        np.testing.assert_array_equal(made, array.reshape(wanted))
    assert fresh((2, 3, 4)).permute((1, 0, 2)).reshape((6, 4)) is None


def test_a_backend_that_lacks_what_is_offered_runs_all_else(wording: Wording) -> None:
    """It is told at the start, by what the model needs, and is no error."""
    hello = {"devices": ["cpu"], "dtypes": ["float64"], "primitives": []}
    plain = tiny(["y = tanh(x)"]).program("training")
    assert missing_requirement(hello, "cpu", "float64", [plain]) == ""
    needs = tiny(["y = sin(x)"]).program("training")
    text = missing_requirement({**hello, "primitives": ["sin"]}, "cpu", "float64", [needs])
    wording(text, "cos(x)")
    assert missing_requirement({**hello, "primitives": [*OFFERED]}, "cpu", "float64", [needs]) == ""
    assert offers_needed(["add", "reshape"]) == {"reshape"}
