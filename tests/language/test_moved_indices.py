"""Indices and conditions are moved, joined and chosen as floats are, and compared with sums."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import SpecError

INPUTS = "  i: {shape: [batch, time], index: vocab}\n  j: {shape: [batch], index: width}\n"
LOSS = "mean(squared_error(y, target)) + mean(astype(i)) + mean(astype(j))"
TABLE = "take(concat([i, i[:, ::-1]], axis=1), arange(2 * time), axis=1)"
TURNED = "concat([i[:, 1:], i[:, :1]], axis=1)"
CASES = {
    f"z = one_hot({TURNED}, vocab)": lambda x, i: np.eye(5)[np.roll(i, -1, 1)],
    "z = astype(concat([i, i[:, ::-1]], axis=1))": lambda x, i: np.concatenate([i, i[:, ::-1]], 1),
    f"z = astype({TABLE})": lambda x, i: np.concatenate([i, i[:, ::-1]], 1),
    "z = astype(where(x[..., 0] > 0.5, i, arange(vocab)[3]))": (
        lambda x, i: np.where(x[..., 0] > 0.5, i, 3)
    ),
    "z = astype(take_along_axis(i, argsort(x[..., 0])))": (
        lambda x, i: np.take_along_axis(i, x[..., 0].argsort(-1), -1)
    ),
    "z = astype(take(i < 2, argmax(x[0], axis=0)[:2], axis=1))": (
        lambda x, i: (i < 2)[:, x[0].argmax(0)[:2]] * 1.0
    ),
    "z = astype(concat([i < 2, i > 3], axis=0))": (
        lambda x, i: np.concatenate([i < 2, i > 3]) * 1.0
    ),
    "z = astype(where(i < 2, i == 1, i == 4))": lambda x, i: ((i == 1) | (i == 4)) * 1.0,
    "z = one_hot(concat([i, i], axis=1), vocab - 2 + 2)": lambda x, i: np.eye(5)[np.tile(i, 2)],
    "z = astype(i + 1 < i[:, ::-1])": lambda x, i: (i + 1 < i[:, ::-1]) * 1.0,
    "z = astype(arange(time)[:, None] - arange(time)[None, :] >= width - 3)": (
        lambda x, i: (np.arange(3)[:, None] - np.arange(3) >= 1) * 1.0
    ),
    "z = astype(vocab - 1 - i == i[:, ::-1])": lambda x, i: (4 - i == i[:, ::-1]) * 1.0,
    "z = astype(2 * i == 3 * arange(time) - 2)": (
        lambda x, i: (2 * i == 3 * np.arange(3) - 2) * 1.0
    ),
    "z = astype(x + 1 - x[:, ::-1] < 1)": lambda x, i: (x + 1 - x[:, ::-1] < 1) * 1.0,
}


@pytest.mark.parametrize("equation", CASES)
def test_an_equation_gives_what_numpy_gives(equation: str) -> None:
    spec = tiny([equation, "y = x + 0 * mean(z)"], inputs=INPUTS, loss=LOSS)
    program = spec.program("training")
    values = computed(program)
    given = {port.name: values[port.value] for port in (*program.inputs, *program.outputs)}
    expected = CASES[equation](given["x"], given["i"])
    assert given["z"].shape == expected.shape
    np.testing.assert_array_equal(given["z"], expected)


@pytest.mark.parametrize(
    ("equation", "told"),
    [
        ("concat([i, x[..., 0]], axis=1)", ""),
        ("where(x[..., 0] > 1, i, 3)", "arange(n)[k]"),
        ("concat([i[:, 0], j], axis=0)", ""),
        ("where(j < 1, i[:, 0], j)", "index(astype(i)"),
        ("i + 0.5", "[batch, time]"),
        ("i + x[..., 0] < 3", ""),
        ("i < x[..., 0] + 1", ""),
        ("i + 0.5 < 3", ""),
        ("sort(i)", "astype(i)"),
        ("windows(i, axes=[1], size=2)", "windows(take(table ... axes=[1], size=3"),
        ("take(i[0, 0], j)", ""),
        ("sum(i, axis=1)", ""),
        ("mean(i < 3)", "[batch, time]"),
        ("var(i, axis=1)", ""),
    ],
)
def test_what_computes_says_what_to_write(equation: str, told: str, wording: Wording) -> None:
    with wording.raises(SpecError, told):
        tiny([f"z = {equation}", "y = x"], inputs=INPUTS, loss=LOSS)
