"""The function ``repeat``: numpy's repeat, for every kind of entries."""

import numpy as np
import pytest
from small_models import computed, tiny
from wording import Wording

from harness.errors import SpecError


@pytest.mark.parametrize(
    ("x", "axis", "times"), [("x", 2, 3), ("x", -1, 1), ("x[:, :1]", 1, 4), ("x[..., 0]", 0, 2)]
)
def test_each_entry_follows_itself(x: str, axis: int, times: int) -> None:
    equations = [f"z = repeat({x}, axis={axis}, times={times})", "y = x * mean(z)"]
    program = tiny([*equations, f"w = {x}"]).program()
    values = computed(program)
    found, given = (values[p.value] for p in program.outputs if p.name in "zw")
    np.testing.assert_array_equal(found, np.repeat(given, times, axis))


def test_indices_keep_their_bound() -> None:
    program = tiny(["i = repeat(arange(width), axis=0, times=2 * width)", "y = x"]).program()
    (port,) = (p for p in program.outputs if p.name == "i")
    type_ = program.type_of(port)
    assert (str(type_), str(type_.bound)) == ("index [2*width*width]", "width")


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        ("repeat(x, times=2)", "axis="),
        ("repeat(x, axis=1)", "times="),
        ("repeat(x, axis=1, times=0)", "1 ... 0"),
        ("repeat(x, axis=3, times=2)", "3 ... 3"),
        ("repeat(x, axis=1, times=x)", "'x'"),
    ],
)
def test_a_wrong_call_is_rejected(call: str, facts: str, wording: Wording) -> None:
    with wording.raises(SpecError, facts):
        tiny([f"z = {call}", "y = x * mean(z)"]).program()
