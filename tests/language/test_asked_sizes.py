"""A size that is asked for on several specs applies where a spec has it."""

from __future__ import annotations

import pytest
from wording import Wording

from harness.errors import UsageError
from harness.language.axes import describe_missing_sizes, select_known_sizes

OWN = {"a": ("vocab", "hidden"), "b": ("vocab", "factors"), "c": ("vocab",)}


def test_a_spec_gets_the_sizes_that_it_has_and_the_free_ones() -> None:
    asked = {"hidden": 3, "factors": 4, "batch": 5, "time": 6}
    assert select_known_sizes(OWN["a"], asked) == {"hidden": 3, "batch": 5, "time": 6}
    assert select_known_sizes(OWN["c"], asked) == {"batch": 5, "time": 6}


def test_where_a_size_applies_is_told_unless_it_is_everywhere(wording: Wording) -> None:
    wording(describe_missing_sizes(["vocab", "batch", "factors"], OWN), "--size ... 2")
    many = {f"m{n}": ("hidden",) for n in range(20)} | OWN
    wording(describe_missing_sizes(["hidden"], many), "--size ... 21 ... 2")


def test_a_size_that_no_spec_has_is_an_error(wording: Wording) -> None:
    with wording.raises(UsageError, "3 ... 'hiden' ... 'hidden'"):
        describe_missing_sizes(["hiden"], OWN)
    with wording.raises(UsageError, "'hidden'"):
        describe_missing_sizes(["hidden"], {"c": OWN["c"]})
    with pytest.raises(UsageError, match=r"no size 'batch'"):
        describe_missing_sizes(["batch"], OWN, free=())
