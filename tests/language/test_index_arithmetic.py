"""Sums, differences and products of indices are indices with a known bound."""

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import SpecError

ROW, COLUMN = "arange(width)[:, None]", "arange(time)"


@pytest.mark.parametrize(
    ("equation", "bound", "values"),
    [
        (f"{ROW} * time + {COLUMN}", "time*width", lambda i, j, n: i * n + j),
        (f"{ROW} + {COLUMN} + 2", "time + width + 1", lambda i, j, n: i + j + 2),
        (f"{ROW} * {COLUMN}", "-time + time*width - width + 2", lambda i, j, n: i * j),
        (f"{ROW} + (time - 1) - {COLUMN}", "time + width - 1", lambda i, j, n: i + n - 1 - j),
        ("2 * arange(width)", "2*width - 1", lambda i, j, n: 2 * i[:, 0]),
    ],
)
def test_the_result_is_an_index_with_its_bound(equation, bound, values) -> None:
    program = tiny([f"k = {equation}", "y = x"]).program()
    (port,) = (p for p in program.outputs if p.name == "k")
    type_, found = program.type_of(port), computed(program)[port.value]
    n = found.shape[-1] if found.ndim > 1 else 0
    i, j = np.arange(found.shape[0])[:, None], np.arange(n)
    assert (type_.kind, str(type_.bound)) == ("index", bound)
    np.testing.assert_array_equal(found, values(i, j, n))


def test_a_sum_selects_rows() -> None:
    equations = [
        "z = take(merge(x, axes=[1, 2]), arange(time)[:, None] * width + arange(width), axis=1)"
    ]
    program = tiny([*equations, "y = x"]).program()
    values = computed(program)
    found = {p.name: values[p.value] for p in program.outputs}
    np.testing.assert_array_equal(found["z"], found["y"])


@pytest.mark.parametrize(
    ("equation", "facts"),
    [
        ("arange(time) - arange(time)", "-time + 1"),
        ("arange(time) + 0.5", "astype"),
        ("arange(time) / 2", "'/' ... astype"),
        ("arange(time) + x", "astype"),
    ],
)
def test_what_is_no_index_is_rejected(equation: str, facts: str, wording: Wording) -> None:
    with wording.raises(SpecError, facts):
        tiny([f"k = {equation}", "y = x"]).program()
