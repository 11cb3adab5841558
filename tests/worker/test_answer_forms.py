"""Whatever a worker sends is an answer of the form that its verb has, or is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.convert.formats import FormatService
from harness.runtime.tensors import IllFormed, Misfit, tensor, whole
from harness.worker import answers
from harness.worker.model_answers import OWN_MODEL

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


FORMS: tuple[Mapping[str, Any], ...]
FORMS = (answers.BACKEND, answers.FORMAT, answers.DEFAULTS, OWN_MODEL)


@settings(max_examples=300)
@given(junk)
def test_any_answer_is_formed_or_refused(value: Any) -> None:
    for forms in FORMS:
        for verb in forms:
            with contextlib.suppress(IllFormed):
                answers.answer(forms, verb, PAYLOAD, value)


@given(junk)
def test_any_message_is_an_answer_or_not(value: Any) -> None:
    assert not answers.is_answer(value, 7)
    assert not answers.is_answer({"id": 7, "status": "ok", "seconds": value}, 7) or isinstance(
        value, float
    )
    with pytest.raises(IllFormed):
        answers.greeted(value, "numpy")


def test_every_verb_has_a_form() -> None:
    from harness.defaults.run import DefaultsService
    from harness.runtime.own_model.service import OwnModelService
    from harness.runtime.service import SessionService
    from harness.training.service import TrainService

    def verbs(*kinds: type) -> set[str]:
        return {
            name
            for kind in kinds
            for name in dir(kind)
            if not name.startswith("_") and callable(getattr(kind, name))
        }

    assert verbs(SessionService, TrainService) == {*answers.BACKEND}
    assert verbs(FormatService) - {"versions"} == {*answers.FORMAT}
    assert verbs(DefaultsService) == {*answers.DEFAULTS}
    greeting = {"versions", "devices", "dtypes"}
    assert verbs(OwnModelService) - greeting == {*OWN_MODEL}


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
        whole({"loss": found})
