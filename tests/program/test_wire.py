"""Programs as plain data and back."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from wording import Wording

from harness.errors import HarnessError
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.program.dims import Dim
from harness.program.ir import Node
from harness.program.serial import CLASSES, decode, encode


@pytest.mark.parametrize("name", lesson6())
def test_programs_and_rules_come_back_equal(name: str) -> None:
    spec = load_spec(name)
    for value in (*spec.programs.values(), spec.update):
        text = json.dumps(encode(value), allow_nan=False)
        back = decode(json.loads(text))
        assert type(back) is type(value)
        for field in dataclasses.fields(value):  # type: ignore[arg-type]
            assert getattr(back, field.name) == getattr(value, field.name), field.name
        assert back == value
        assert json.dumps(encode(back)) == text


def test_a_small_change_is_no_longer_equal() -> None:
    program = load_spec("lesson6/simple_rnn").program()
    text = json.dumps(encode(program))
    assert text.count('"tanh"') == 0
    changed = json.loads(text.replace('"take"', '"taken"', 1))
    assert decode(changed) != program


def test_every_class_and_every_plain_value_passes() -> None:
    node = Node("slice", (1,), (2,), {"stop": Dim.of("time") * 2, "axis": (0, 1), "on": True})
    back = decode(encode({1: node, "none": None, "text": "x", "number": 0.1}))
    assert back == {1: node, "none": None, "text": "x", "number": 0.1}
    assert back[1].attributes["on"] is True
    told = {"Composite", "Meaning", "Total", "UpdateRule"}
    assert set(CLASSES) == {"Dim", "Type", "Block", "Node", "Port", "Program", *told}


def test_lists_come_back_as_tuples() -> None:
    assert decode(encode([1, [2, 3]])) == (1, (2, 3))


@pytest.mark.parametrize("value", [np.zeros(2), {1}, b"bytes", object(), 1j])
def test_what_is_no_plain_data_is_refused(value: object, wording: Wording) -> None:
    with wording.raises(HarnessError):
        encode({"deep": [value]})


@pytest.mark.parametrize("data", [{"class": "Popen", "fields": []}, {"fields": []}, {}])
def test_an_unknown_class_is_refused(data: object, wording: Wording) -> None:
    with wording.raises(HarnessError):
        decode([data])
