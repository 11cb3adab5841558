"""The primitives that the harness derives for a backend that lacks them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from window_cases import WINDOWS, one_by_one

from harness.backends.numpy.primitives import PRIMITIVES
from harness.program.primitives import DERIVABLE, TABLE
from harness.runtime.derived_primitives import complete_table
from harness.runtime.precision import Table

REQUIRED = {name: PRIMITIVES[name] for name in TABLE}


def complete(table: Table, lacking: Collection[str] = (), dtype: str = "float64") -> Table:
    return complete_table(table, lacking, np.asarray, dtype)


@pytest.mark.parametrize(("op", "operands", "attributes"), WINDOWS)
def test_windows_are_made_from_required_primitives(op: str, operands: Any, attributes: Any) -> None:
    _, _, expected = one_by_one(op, *operands, **attributes)
    found = complete(REQUIRED)[op](*operands, **attributes)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_padding_has_the_dtype_of_the_floats() -> None:
    one = {"axes": (0,), "size": (2,), "stride": (1,), "dilation": (1,), "padding": (1,)}
    framing = {**one, "after": (0,), "length": (3,), "lowest": True}
    for dtype in ("float32", "bfloat16"):
        made = complete(REQUIRED, dtype=dtype)["windows"](np.ones(3, "float32"), **framing)
        assert made.dtype == np.float32
        assert made.tolist() == [[-np.inf, 1], [1, 1], [1, 1]]


def test_a_backend_s_own_primitive_runs_unless_it_is_lacking_in_this_dtype() -> None:
    full = dict(PRIMITIVES)
    assert all(complete(full)[op] is full[op] for op in DERIVABLE)
    derived = complete(full, lacking=("windows",))
    assert derived["windows"] is not full["windows"]
    assert derived["overlap_add"] is full["overlap_add"]


def test_argsort_gets_an_operand_whose_gradient_is_cut() -> None:
    cut: list[Any] = []
    table = {**PRIMITIVES, "stop_gradient": lambda x: cut.append(x) or -x}
    x = np.array([[1.0, 3.0, 2.0]])
    assert complete(table)["argsort"](x).tolist() == [[1, 2, 0]]
    assert cut[0] is x
    assert "argsort" not in complete(REQUIRED)
