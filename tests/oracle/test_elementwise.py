"""The values of shipped functions of one number."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, expit

from harness.oracle.elementwise import elementwise_names, elementwise_values


def test_functions_of_one_number_have_the_values_of_their_equations() -> None:
    x = np.linspace(-9, 9, 101)
    values = elementwise_values(x)
    assert values.keys() == set(elementwise_names())
    expected = {
        "gelu": x * (1 + erf(x / 2**0.5)) / 2,
        "silu": x * expit(x),
        "leaky_relu": np.where(x > 0, x, 0.01 * x),
        "clip": np.clip(x, -1, 1),
        "softsign": x / (1 + abs(x)),
    }
    for name, numbers in expected.items():
        np.testing.assert_allclose(values[name], numbers, rtol=1e-12, atol=1e-15)


def test_functions_of_an_axis_or_of_several_arrays_are_left_out() -> None:
    assert not {"softmax", "maximum", "last", "rotary", "linear"} & set(elementwise_names())
