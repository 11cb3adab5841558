"""Totality: changing any attribute of a layer, loss or optimizer changes what it computes."""

import numpy as np
import pytest
import yaml
from golden.tiny import draw, evaluate
from golden.tiny import tiny as one_call
from small_models import LIBRARY
from wording import Wording

from harness.errors import SpecError
from harness.language import schema
from harness.language.hints import shipped_hints
from harness.language.library import Library, content
from harness.language.lower_optimizer import lower_update
from harness.oracle import oracle
from harness.program.updates import at_shape
from harness.runtime.updates import initial_slots

KINDS = {"layer": schema.Layer, "function": schema.Function, "optimizer": schema.Optimizer}
# Attributes that count.
WHOLE = ("stride", "dilation", "padding")


# An attribute's other value is another number, or a function that differs everywhere.
def other(attribute, default):
    if isinstance(default, bool):
        return not default
    if isinstance(default, str):
        return "sigmoid" if default != "sigmoid" else "tanh"
    if isinstance(default, list):
        return 2 if "size" in default else [other("stride", number) for number in default]
    if attribute == "groups":
        return "groups * each"
    if attribute in WHOLE:
        return int(default) - 1 if default > 1 else int(default) + 1
    return default / 2 or 0.125


def attributes_of(kind):
    return [
        (name, attribute)
        for name in LIBRARY.names(kind)
        for attribute, default in LIBRARY.find(kind, name).content.attributes.items()
        if default != "size"
    ]


def layer_result(name, given):
    found = []
    # What only noise depends on shows in its mean.
    for phase in ("training", "inference"):
        case = one_call("layer", name, given, phase)
        drawn = draw(case, 0)
        if name == "masked_attention":  # `zero_if_empty` is for rows without any entry
            drawn["mask"][0] = False
        found += evaluate(case, drawn, {}).values()
    return found


def loss_result(name, given):
    case = one_call("loss", name, given)
    drawn = draw(case, 0)
    if "probabilities" in drawn:  # only what is certain is clipped
        drawn["probabilities"][0] = 0.0
    return list(evaluate(case, drawn, {}).values())


def optimizer_result(name, given):
    every, found = lower_update(LIBRARY, name, given, None), []
    # The last so small that Adafactor's least numbers count.
    for shape, scale in (((3,), 1), ((3, 4), 1), ((2,), 1e-16)):
        p = scale * (np.random.default_rng(0).normal(size=shape) ** 2 + 0.1)
        rule, starts = every.of("p", p.ndim), initial_slots(every, {"p": p})
        # At a step where RAdam rectifies, and against the momentum, so that Lion's may turn.
        env = {rule.parameter: p, rule.gradient: -p / 3, rule.step: np.float64(30)}
        env[rule.learning_rate] = np.float64(rule.attributes["learning_rate"])
        env.update(
            {s.value: np.resize(scale * p, starts[s.name]["p"].shape) / 5 for s in rule.slots}
        )
        env = oracle.run(at_shape(rule, rule.nodes, shape), env, {"entries": p.size})
        found += [arrays["p"] for arrays in starts.values()]
        found += [env[v] for v in (rule.new_parameter, *(s.value for s in rule.new_slots))]
    return found


RESULTS = {"layer": layer_result, "loss": loss_result, "optimizer": optimizer_result}
ATTRIBUTES = [(kind, *found) for kind in RESULTS for found in attributes_of(kind)]


def test_every_kind_has_attributes_to_change():
    assert {kind for kind, *_ in ATTRIBUTES} == set(RESULTS)


@pytest.mark.parametrize(("kind", "name", "attribute"), ATTRIBUTES)
def test_changing_any_attribute_changes_the_result(kind, name, attribute):
    default = LIBRARY.find(kind, name).content.attributes[attribute]
    beside = {"dilation": {"padding": 1}, "groups": {"units": "2 * groups * each"}}
    beside["count_padding"] = {"padding": 1}
    beside = beside.get(attribute, {})
    same = int(default) if attribute in WHOLE and not isinstance(default, list) else default
    same = 3 if same == ["size"] * len(str(same).split(",")) else same
    before, known, after = (
        RESULTS[kind](name, {**beside, **given})
        for given in ({}, {attribute: same}, {attribute: other(attribute, default)})
    )
    for one, two in zip(before, known, strict=True):
        np.testing.assert_array_equal(one, two)
    pairs = zip(before, after, strict=True)
    assert any(one.shape != two.shape or (one != two).any() for one, two in pairs)


def test_what_frameworks_call_an_attribute_is_known_to_a_definition_that_ships() -> None:
    declared = {
        name
        for kind, form in KINDS.items()
        for definition in LIBRARY.names(kind)
        for name in content(LIBRARY.find(kind, definition), form).attributes
    }
    hints = shipped_hints()
    assert {*hints.renamed_attributes.values(), *hints.attributes_of_others} <= declared
    assert not declared & {*hints.renamed_attributes, *hints.attributes}


def test_only_an_attribute_that_is_a_number_can_be_unusual(wording: Wording) -> None:
    shipped = LIBRARY.find("layer", "batch_norm").content.model_dump(exclude_none=True)
    own = {**shipped, "layer": "own", "unusual": {"momentun": {"below": 0.5, "note": "..."}}}
    library = Library(overrides={("layer", "own"): yaml.safe_dump(own, sort_keys=False)})
    with wording.raises(SpecError, "'momentun' ... 'momentum'"):
        library.find("layer", "own")
