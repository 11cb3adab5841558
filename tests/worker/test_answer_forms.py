"""Whatever a worker sends is an answer of the form that its verb has, or is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wording import Wording

from harness.convert.formats import FormatService
from harness.defaults.service import DefaultsService
from harness.runtime.answers import IllFormed, Misfit, check_all_arrays, tensor
from harness.runtime.own_model.service import OwnModelService
from harness.runtime.service import SessionService
from harness.training.service import TrainService
from harness.worker import answers
from harness.worker.remote import client

# What a worker may send in place of an answer: anything that a frame can hold.
arrays = st.sampled_from(
    [np.float32(1.5), np.zeros(3), np.zeros((2, 2), complex), np.array("x"), np.zeros(0, "M8[s]")]
)
words = st.sampled_from(["paths", "results", "parameters", "slots", "many", "loss", "tried"])
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3) | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words | st.integers(-2, 2) | st.text(max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)
SIZES = [[1, 1, 1], [2, 2, 2]]
PAYLOAD = {"count": 2, "batches": [{}, {}], "sizes": SIZES, "starts": [1, 2]}


SERVICES = (SessionService, TrainService, FormatService, DefaultsService, OwnModelService)
FORMS = tuple(map(answers.Forms, SERVICES))


@settings(max_examples=300)
@given(junk)
def test_any_answer_is_formed_or_refused(value: Any) -> None:
    for forms in FORMS:
        for verb in forms:
            with contextlib.suppress(IllFormed):
                answers.check_answer(forms, verb, PAYLOAD, value)


@given(junk)
def test_any_message_is_an_answer_or_not(value: Any) -> None:
    assert not answers.is_answer(value, 7)
    assert not answers.is_answer({"id": 7, "status": "ok", "seconds": value}, 7) or isinstance(
        value, float
    )
    with pytest.raises(IllFormed):
        answers.check_greeting(value, "numpy")


@pytest.mark.parametrize("forms", FORMS, ids=lambda forms: forms.service.__name__)
def test_every_public_method_of_a_service_has_an_answer(forms: answers.Forms) -> None:
    verbs = [name for name, value in vars(forms.service).items() if callable(value)]
    assert {name for name in verbs if not name.startswith("_")} <= {*forms}


def test_a_client_calls_the_verb_with_the_arguments_that_are_given() -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    steps = client(SessionService, lambda verb, **given: calls.append((verb, given)), "x_")
    steps.latency(3, count=2)
    steps.restart()
    assert calls == [("x_latency", {"first": 3, "count": 2}), ("x_restart", {})]
    with pytest.raises(TypeError, match="count"):
        steps.latency(3)  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="latencies"):
        steps.latencies  # type: ignore[attr-defined]  # noqa: B018


def test_a_list_has_as_many_entries_as_were_asked_for(wording: Wording) -> None:
    forms = answers.Forms(SessionService)
    assert answers.check_answer(forms, "latency", {"count": 2}, [0.5, 1.0]) == [0.5, 1.0]
    for verb, value in (("latency", [0.5]), ("stages", [[0.1, 0.2], [0.1, 0.2]])):
        with pytest.raises(IllFormed, match="entries"):
            answers.check_answer(forms, verb, {"count": 2}, value)
    peaks = {"products": [1.0], "bandwidth": 1.0}
    with wording.raises(IllFormed, "2 ... 1"):
        answers.check_answer(forms, "peaks", {"sizes": SIZES}, peaks)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "nothing was returned"),
        ([1.0], "expected an array, found list"),
        (np.zeros(2, complex), "expected an array of numbers, found dtype complex128"),
        (np.array(["a"]), "expected an array of numbers, found dtype <U1"),
    ],
)
def test_what_is_no_array_of_numbers_says_so(value: Any, reason: str) -> None:
    found = tensor(value)
    assert found == Misfit(reason)
    with pytest.raises(IllFormed, match="loss: "):
        check_all_arrays({"loss": found})
