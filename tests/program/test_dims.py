"""Symbolic dimensions: their arithmetic, and what arrays bind."""

import pytest
from wording import Wording

from harness.errors import UsageError
from harness.program.dims import ONE, Dim, bind, resolve_shape, shape_text

A, B = Dim.of("a"), Dim.of("b")


def test_arithmetic():
    assert Dim.of(3) == Dim(3)
    assert Dim.of(A) is A
    assert A + B == B + A
    assert A + 1 - 1 == A
    assert Dim(0) == A - A
    assert A + A == A * 2
    assert Dim() == A * 0
    assert (A + B * 2 - 3) - B == A + B - 3
    assert A != B
    assert Dim(1) == ONE


def test_equal_dims_have_equal_hashes():
    assert len({A + B, B + A, A * 1 + B}) == 1


def test_text():
    assert [str(d) for d in (Dim(), Dim(3), A, A * 2, A + B, A - 3, A - B)] == [
        "0",
        "3",
        "a",
        "2*a",
        "a + b",
        "a - 3",
        "a - b",
    ]
    assert shape_text([A, Dim(3)]) == "[a, 3]"
    assert shape_text([]) == "[]"


def test_names_resolution_and_substitution():
    dim = A * 2 + B - 1
    assert dim.names == ("a", "b")
    assert dim.resolve({"a": 3, "b": 4, "c": 9}) == 9
    assert resolve_shape((A, dim), {"a": 3, "b": 4}) == (3, 9)
    assert dim.substitute({"a": B + 1}) == B * 3 + 1


def test_an_unknown_size_is_named(wording: Wording):
    with wording.raises(UsageError, "'hiden' ... 1 ... 'hidden'"):
        (Dim.of("hiden") + 1).resolve({"hidden": 3})
    with pytest.raises(UsageError, match=r"known: none"):
        A.resolve({})


def bound_by(shape, found, sizes=None):
    bound = {}
    bind("x", shape, found, sizes or {}, bound)
    return bound


def test_bind_solves_for_the_sizes_of_arrays():
    assert bound_by((A, B, Dim(3)), (5, 7, 3)) == {"a": 5, "b": 7}
    assert bound_by((A + 2,), (5,)) == {"a": 3}
    assert bound_by((A * 2,), (6,)) == {"a": 3}
    assert bound_by((B - A,), (6,), {"b": 8}) == {"a": 2}
    assert bound_by((A, A + 1), (6, 7)) == {"a": 6}
    assert bound_by((), ()) == {}


@pytest.mark.parametrize(
    ("shape", "found", "message"),
    [
        ((A, B), (3,), "[a, b] ... [3]: 1 ... 2"),
        ((Dim.of("n"),), (4,), "0 ... 3 ... 4 ... [n] ... [4]"),
        ((A, A), (3, 4), "1 ... 3 ... 4"),
        ((A + B,), (3,), "0"),
        ((A * 2,), (3,), "0 ... 2*a ... 1 ... 3"),
        ((A + 4,), (3,), "0 ... 4 ... 1 ... 3"),
        ((A,), (0,), "0 ... 1 ... 0"),
    ],
)
def test_bind_refuses_what_does_not_fit(shape, found, message, wording: Wording):
    with wording.raises(UsageError, message):
        bound_by(shape, found, {"n": 3})
