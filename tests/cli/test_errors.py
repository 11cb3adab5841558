"""Places, messages and groups of errors."""

import pickle

import pytest
from wording import Wording

from harness.errors import (
    HarnessError,
    Place,
    SpecError,
    SpecErrors,
    UsageError,
    did_you_mean,
    one_or_many,
    shorten,
    unknown,
)


def test_a_place_is_what_editors_jump_to():
    assert str(Place("model.yaml", 11, 5)) == "model.yaml:11:5"
    assert str(Place("model.yaml")) == "model.yaml"


@pytest.mark.parametrize("kind", [UsageError, SpecError, SpecErrors])
def test_every_error_for_a_user_is_a_harness_error(kind):
    assert issubclass(kind, HarnessError)


def test_a_spec_error_shows_its_place_first():
    assert str(SpecError("unknown key 'x'", Place("a.yaml", 2, 3))) == "a.yaml:2:3: unknown key 'x'"
    assert str(SpecError("unknown key 'x'")) == "unknown key 'x'"


def test_several_errors_are_reported_in_file_order_and_caught_as_one():
    first = SpecError("one", Place("a.yaml", 2, 9))
    second = SpecError("two", Place("a.yaml", 10, 1))
    with pytest.raises(SpecError) as caught:
        raise one_or_many([second, first])
    assert str(caught.value) == "a.yaml:2:9: one\na.yaml:10:1: two"
    assert isinstance(caught.value, SpecErrors)
    assert caught.value.errors == (first, second)
    assert (caught.value.place, caught.value.message) == (first.place, "one")


def test_one_error_stays_itself():
    error = SpecError("one")
    assert one_or_many([error]) is error


def test_a_group_of_no_errors_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        SpecErrors([])


@pytest.mark.parametrize(
    "error",
    [
        SpecError("one", Place("a.yaml", 2, 9)),
        SpecErrors([SpecError("one", Place("a.yaml", 2, 9)), SpecError("two")]),
    ],
)
def test_errors_survive_the_way_between_processes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("hiden", "'hidden'"),
        ("HIDDEN", "'hidden'"),
        ("relu", "'ReLU'"),
        ("zebra", ""),
        ("", ""),
        (3, ""),
        ("hidden" * 100, ""),
    ],
)
def test_did_you_mean(value, hint, wording: Wording):
    wording(did_you_mean(value, ["hidden", "kind", "ReLU"]), hint)


def test_only_names_that_are_near_are_guessed(wording: Wording):
    assert did_you_mean("nonsense", ["dense", "conv2d"]) == ""
    wording(did_you_mean("sdg", ["sgd", "adam"]), "'sgd'")


def test_words_of_other_programs_are_known(wording: Wording):
    assert did_you_mean("fp32", ["float64", "float32"]) == "; did you mean 'float32'?"
    assert did_you_mean("fp32", ["float64"]) == ""
    wording(did_you_mean("GPU", ["cpu", "cuda"]), "'cuda'")


def test_a_long_list_of_names_stands_beside_no_guess(wording: Wording):
    names = [f"name{number}" for number in range(11)]
    wording.line(unknown("thing", "name", names), "'name' ... 'name9'")
    assert str(unknown("thing", "zzz", names)).endswith(f"(known: {', '.join(names)})")
    assert str(unknown("thing", "name", names[:10])).endswith(f"(known: {', '.join(names[:10])})")


def test_shorten_keeps_a_message_on_one_line():
    assert shorten("a\n  b\tc") == "a b c"
    assert shorten("x" * 60) == "x" * 60
    assert shorten("x" * 61) == "x" * 57 + "..."
