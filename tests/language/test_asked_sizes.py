"""A size that is asked for on several specs applies where a spec has it."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.language.asked_sizes import check_asked, known_sizes

OWN = {"a": ("vocab", "hidden"), "b": ("vocab", "factors"), "c": ("vocab",)}


def test_a_spec_gets_the_sizes_that_it_has_and_the_free_ones() -> None:
    asked = {"hidden": 3, "factors": 4, "batch": 5, "time": 6}
    assert known_sizes(OWN["a"], asked) == {"hidden": 3, "batch": 5, "time": 6}
    assert known_sizes(OWN["c"], asked) == {"batch": 5, "time": 6}


def test_where_a_size_applies_is_told_unless_it_is_everywhere() -> None:
    assert check_asked(["vocab", "batch", "factors"], OWN) == [
        "--size factors applies to b; 2 others have none of that name"
    ]
    many = {f"m{n}": ("hidden",) for n in range(20)} | OWN
    assert check_asked(["hidden"], many) == [
        "--size hidden applies to 21 specs; 2 others have none of that name"
    ]


def test_a_size_that_no_spec_has_is_an_error() -> None:
    with pytest.raises(
        UsageError, match=r"the 3 specs have no size 'hiden'; did you mean 'hidden'"
    ):
        check_asked(["hiden"], OWN)
    with pytest.raises(UsageError, match=r"^c has no size 'hidden' \(known: vocab, batch, time\)$"):
        check_asked(["hidden"], {"c": OWN["c"]})
    with pytest.raises(UsageError, match=r"no size 'batch'"):
        check_asked(["batch"], OWN, free=())
