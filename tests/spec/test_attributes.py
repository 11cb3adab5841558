"""Totality: changing any attribute of a layer, loss or optimizer changes what it computes."""

import numpy as np
import pytest
from small_models import LIBRARY, computed, tiny

from harness.oracle import oracle
from harness.spec.lower_optimizer import lower_update


# An attribute's other value is this number, or a function that differs everywhere.
def other(default):
    if isinstance(default, str):
        return "sigmoid" if default != "sigmoid" else "tanh"
    return default / 2


def attributes_of(kind):
    return [
        (name, attribute)
        for name in LIBRARY.names(kind)
        for attribute, default in LIBRARY.find(kind, name).content.attributes.items()
        if default != "size"
    ]


def layer_result(name, given):
    declared = LIBRARY.find("layer", name).content
    sizes = {n: "width" for n, d in declared.attributes.items() if d == "size" and n != "rows"}
    sizes |= {"rows": "vocab"} if "rows" in declared.attributes else {}
    # Groups of one channel each: a product of two widths is not a width.
    sizes |= {"each": 1} if "each" in declared.attributes else {}
    use = ", ".join(f"{k}: {v}" for k, v in {"layer": name, **sizes, **given}.items())
    found = []
    # What only noise depends on shows in its mean.
    for phase in ("training", "inference"):
        program = tiny(["y = use(x)"], f"{{use: {{{use}}}}}").program(phase)
        env = computed(program)
        found += [env[p.value] for p in (*program.outputs, *program.new_statistics)]
    return found


def loss_result(name, given):
    keywords = "".join(f", {k}={v}" for k, v in given.items())
    program = tiny(["y = 0 * x"], loss=f"mean({name}(y, target{keywords}))").program()
    return [computed(program)[program.loss]]


def optimizer_result(name, given):
    rule = lower_update(LIBRARY, name, given, None)
    generator = np.random.default_rng(0)
    vector = generator.normal(size=3) ** 2 + 0.1
    env = {rule.parameter: vector, rule.gradient: vector / 3, rule.step: np.float64(3)}
    env[rule.learning_rate] = np.float64(rule.attributes["learning_rate"])
    env.update({slot.value: vector / 5 for slot in rule.slots})
    env = oracle.run(rule.nodes, env, {"entries": 3})
    return [env[v] for v in (rule.new_parameter, *(slot.value for slot in rule.new_slots))]


RESULTS = {"layer": layer_result, "loss": loss_result, "optimizer": optimizer_result}
ATTRIBUTES = [(kind, *found) for kind in RESULTS for found in attributes_of(kind)]


def test_every_kind_has_attributes_to_change():
    assert {kind for kind, *_ in ATTRIBUTES} == set(RESULTS)


@pytest.mark.parametrize(("kind", "name", "attribute"), ATTRIBUTES)
def test_changing_any_attribute_changes_the_result(kind, name, attribute):
    default = LIBRARY.find(kind, name).content.attributes[attribute]
    given = {attribute: other(default)}
    before, same = RESULTS[kind](name, {}), RESULTS[kind](name, {attribute: default})
    after = RESULTS[kind](name, given)
    for one, two in zip(before, same, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(before, after, strict=True))
