"""What a model says of its optimizer, and how slots start; with what is wrong told at its place."""

from __future__ import annotations

import re

import numpy as np
import pytest
from small_models import ONE_LAYER
from wording import Wording

from harness.errors import SpecError
from harness.language.library import Library
from harness.language.lower_optimizer import lower_update
from harness.language.model import Spec, fingerprint, load_spec
from harness.program.serial import digest
from harness.program.updates import by_parameter
from harness.runtime.updates import initial_slots

PLAIN = "{optimizer: sgd, learning_rate: 0.125}"
AVERAGED = """\
optimizer: averaged
summary: Gradient descent beside a moving mean of where it was.
source: Made for a test.
attributes: {learning_rate: 0.01, decay: 0.9, first: 0.5}
slots: {average: p, one: ones, half: first, two: 2, none: zeros}
total: {square: g * g}
update: |
  average = decay * average + (1 - decay) * p
  one = one * 1
  half = half * 1
  two = two * 1
  none = none * 1
  p = p - learning_rate * g / sqrt(square) * one * half * two * (none + 1)
"""


def spec_with(use: str) -> Spec:
    text = ONE_LAYER.format(name="one").replace(PLAIN, use)
    assert use in text
    return load_spec("one", overrides={("model", "one"): text})


# What is wrong -> column and message. The optimizer stands in line 14.
WRONG = {
    "{optimizer: sgd, schedule: t * lr}": ("unknown name 'lr'", 32),
    "{optimizer: sgd, schedule: g}": ("unknown name 'g'", 28),
    "{optimizer: sgd, schedule: 'where(t < 1, 1'}": ("'(' is never closed", 34),
    "{optimizer: sgd, gradient: t}": ("'gradient' must be [entries], found []", 28),
    "{optimizer: sgd, gradient: p}": ("'gradient' must use g", 28),
    "{optimizer: sgd, gradient: g / norm}": ("unknown name 'norm'", 32),
    "{optimizer: sgd, gradient: g * learning_rate}": ("unknown name 'learning_rate'", 32),
    "{optimizer: sgd, gradient: 'g / sum(g, axis=0)'}": ("leave out axis=", 45),
    "{optimizer: sgd, total: {n: g * g}}": ("total 'n' is declared but never used", 26),
    "{optimizer: sgd, total: {n: sum(g)}, gradient: g / n}": ("total 'n' must be [entries]", 29),
    "{optimizer: sgd, total: {p: g}, gradient: g / p}": ("'p' is in use", 29),
    "{optimizer: sgd_momentum, momentum: fast}": ("unknown name 'fast'", 37),
    "{optimizer: sgd, learning_rate: 1 / t}": ("attribute 'learning_rate' must be a number", 33),
    "{optimizer: sgd, momentum: 1 / t}": ("unknown attribute 'momentum'", 18),
    "{optimizer: sgd, groups: [{parameters: out.b}]}": ("a group must set attributes", 27),
    "{optimizer: sgd, groups: [{parameters: out.c, schedule: 0}]}": (
        "matches no parameter",
        40,
    ),
    "{optimizer: sgd, groups: [{parameters: out.b, decay: 0}]}": ("unknown attribute 'decay'", 47),
    "{optimizer: sgd, groups: [{parameters: out.b, schedule: g}]}": ("unknown name 'g'", 57),
    "{optimizer: sgd, groups: [{parameters: out.b, learning_rate: 0.1}]}": (
        "a group cannot set the learning rate, because training phases set it: give a ",
        47,
    ),
    "{optimizer: sgd, groups: [{parameters: [], schedule: 0.1}]}": (
        "this group has no parameters: give a pattern of parameter names",
        40,
    ),
    "{optimizer: sgd, groups: [{parameters: o*, schedule: 1}, {parameters: '*.b', schedule: 0}]}": (
        "earlier groups match all parameters of this group (out.b), and the first match",
        71,
    ),
}


@pytest.mark.parametrize("use", WRONG)
def test_what_is_wrong_is_told_at_its_place(use: str) -> None:
    message, column = WRONG[use]
    with pytest.raises(SpecError) as caught:
        spec_with(use)
    assert message in str(caught.value)
    found = re.search(r":14:(\d+)", str(caught.value))
    assert found is not None, str(caught.value)
    assert int(found[1]) == len("optimizer: ") + column


def test_slots_start_as_they_say() -> None:
    library = Library((), {("optimizer", "averaged"): AVERAGED})
    rule = lower_update(library, "averaged", {"first": 0.25}, None)
    parameters = {"w": np.array([[1.5, -2.0]]), "b": np.array(3.0)}
    found = initial_slots(rule, parameters)
    assert {slot: arrays["w"].tolist() for slot, arrays in found.items()} == {
        "average": [[1.5, -2.0]],
        "one": [[1.0, 1.0]],
        "half": [[0.25, 0.25]],
        "two": [[2.0, 2.0]],
        "none": [[0.0, 0.0]],
    }
    assert all(arrays["b"].shape == () for arrays in found.values())
    found["average"]["w"][:] = 0
    assert parameters["w"].tolist() == [[1.5, -2.0]]
    assert not by_parameter(rule)


def test_the_first_group_that_has_a_parameter_counts(wording: Wording) -> None:
    groups = "[{parameters: [none.x, out.*], momentum: 0.5}, {parameters: '*.b', momentum: 0}]"
    with wording.raises(SpecError, "'none.x'"):
        spec_with(f"{{optimizer: sgd_momentum, groups: {groups}}}")
    groups = groups.replace("none.x, ", "").replace("out.*", "out.W")
    rule = spec_with(f"{{optimizer: sgd_momentum, groups: {groups}}}").update
    assert rule is not None
    found = {name: rule.of(name, 1).attributes["momentum"] for name in ("out.W", "out.b", "x")}
    assert found == {"out.W": 0.5, "out.b": 0.0, "x": 0.9}


def test_what_comes_to_the_same_has_no_other_checksum() -> None:
    """Weights of before are those of a rule that says no more than it did."""
    plain = fingerprint(spec_with(PLAIN))
    assert fingerprint(spec_with(PLAIN.replace("}", ", groups: []}"))) == plain
    assert fingerprint(spec_with(PLAIN.replace("}", ", schedule: 1 / t}"))) != plain


@pytest.mark.parametrize("more", ["schedule: 1 / t", "gradient: 2 * g", "momentum: 1 / t"])
def test_what_a_model_says_makes_another_rule(more: str) -> None:
    """What the oracle has made of one is not taken for the other, though both have one name."""
    use = "{optimizer: sgd_momentum, learning_rate: 0.125}"
    one, two = (spec_with(u).update for u in (use, use.replace("}", f", {more}}}")))
    assert digest(one) == digest(spec_with(use).update)
    assert digest(one) != digest(two)
