"""From spec files to programs: counts, sharing, state, statistics and sizes."""

import json

import numpy as np
import pytest
from small_models import ARRAYS, TINY, computed, tiny
from wording import Wording

from harness.errors import SpecError, UsageError
from harness.language import schema
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.program.ir import walk_nodes

PARAMETERS = {
    "lesson6/three_char": 109_355,
    "lesson6/first_rnn": 127_205,
    "lesson6/simple_rnn": 102_258,
    "lesson6/sequence_unrolled": 127_462,
    "lesson6/sequence_rnn": 102_258,
    "lesson6/sequence_onehot": 109_910,
    "lesson6/stateful_lstm": 331_974,
    "lesson6/keras_gru": 285_526,
    "lesson6/theano_rnn": 110_166,
    "lesson6/pure_python_rnn": 109_568,
    "lesson6/theano_gru": 285_526,
    "lesson6/theano_gru_combined": 285_526,
}
STATISTICS = {"lesson6/stateful_lstm": 84}


def count(program, ports):
    return sum(int(np.prod(program.shape(port))) for port in ports)


def output(program, name="y", seed=0):
    (port,) = (p for p in program.outputs if p.name == name)
    return computed(program, seed)[port.value]


def test_the_models_are_all_here():
    assert set(PARAMETERS) == set(lesson6())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    spec = load_spec(name)
    for phase in ("training", "inference"):
        program = spec.program(phase)
        assert count(program, program.parameters) == PARAMETERS[name]
        assert count(program, program.statistics) == STATISTICS.get(name, 0)


def test_every_value_has_a_type_and_the_types_are_those_of_the_arrays():
    for name in PARAMETERS:
        program = load_spec(name).program("training", hidden=6)
        env = computed(program)
        sizes = {**program.sizes, **ARRAYS}
        for value, array in env.items():
            declared = program.types[value]
            if value in {o for node in program.nodes for o in node.outputs}:
                assert np.shape(array) == tuple(d.resolve(sizes) for d in declared.shape)


def test_a_layer_that_is_called_twice_shares_its_parameters():
    layers = "{twice: {layer: dense, units: width}}"
    program = tiny(["y = twice(twice(x))"], layers).program()
    assert [p.name for p in program.parameters] == ["twice.W", "twice.b"]
    labels = [n.attributes["label"] for n in program.calls if n.attributes["kind"] == "layer"]
    assert labels == ["twice", "twice#2"]
    once = tiny(["y = a(b(x))"], "{a: {layer: dense, units: width}, b: {layer: dense, units: 4}}")
    assert [p.name for p in once.program().parameters] == ["a.W", "a.b", "b.W", "b.b"]


def test_state_is_carried():
    program = load_spec("lesson6/stateful_lstm").program()
    assert [p.name for p in program.state] == ["h", "c"]
    assert [p.name for p in program.new_state] == ["h", "c"]
    assert [p.init for p in program.state] == [{"init": "zeros"}] * 2
    for before, after in zip(program.state, program.new_state, strict=True):
        assert before.value != after.value
        assert program.type_of(before) == program.type_of(after)
    # The output h of the cell, at the last step, is its last state.
    env = computed(program.with_sizes(hidden=5, factors=3, vocab=7))
    (hidden,) = (p for p in program.outputs if p.name == "hidden_states")
    np.testing.assert_array_equal(env[hidden.value][:, -1], env[program.new_state[0].value])


def test_statistics_move_through_every_call_in_training_and_stay_in_inference():
    spec = tiny(["y = norm(norm(x))"], "{norm: {layer: batch_norm}}")
    training, inference = spec.program("training"), spec.program("inference")
    env = computed(training)
    mean = {p.name: p.value for p in training.statistics}["norm.moving_mean"]
    new = {p.name: p.value for p in training.new_statistics}["norm.moving_mean"]
    first, second = (n for n in training.calls if n.attributes["kind"] == "layer")
    x = env[training.inputs[0].value]
    once = 0.99 * env[mean] + 0.01 * x.mean((0, 1))
    twice = 0.99 * once + 0.01 * env[first.outputs[0]].mean((0, 1))
    np.testing.assert_allclose(env[new], twice, rtol=1e-14)
    assert second.outputs[0] in env
    assert [p.value for p in inference.new_statistics] == [p.value for p in inference.statistics]


def test_an_output_that_is_an_argument_is_a_value_of_its_own():
    layer = "\n".join(
        [
            "layer: same",
            "summary: The input.",
            "source: Made for a test.",
            "inputs: {x: [...]}",
            "equations: y = x",
            "output: y",
        ]
    )
    spec = tiny(["y = same(x)"], "{same: {layer: same}}", overrides={("layer", "same"): layer})
    call = spec.program().calls[0]
    assert not set(call.outputs) & set(call.inputs)


@pytest.mark.parametrize(
    ("axes", "axis"), [("[..., f]", (0, 1)), ("[b, ...]", (1, 2)), ("[b, ..., f]", (1,))]
)
def test_rest_axes_anywhere(axes, axis):
    function = "\n".join(
        [
            "function: total",
            "summary: A sum.",
            "source: Made for a test.",
            f"inputs: {{x: {axes}}}",
            "equations: y = sum(2 * x, axis=...)",
            "output: y",
        ]
    )
    program = tiny(["y = x", "z = total(x)"], overrides={("function", "total"): function}).program()
    np.testing.assert_allclose(output(program, "z"), output(program).sum(axis) * 2, rtol=1e-14)


def test_rest_axes_of_another_value_are_refused(wording: Wording):
    function = "\n".join(
        [
            "function: total",
            "summary: A sum.",
            "source: Made for a test.",
            "inputs: {x: [b, ...]}",
            "equations: y = sum(x[0], axis=...)",
            "output: y",
        ]
    )
    with wording.raises(SpecError, "axis= ... [time, width] ... 1"):
        tiny(["y = total(x)"], overrides={("function", "total"): function})
    function = function.replace("[b, ...]", "[b, ...], z: [...]").replace("x[0]", "x - z")
    with wording.raises(SpecError):
        tiny(["y = total(x, x[0])"], overrides={("function", "total"): function})


def test_one_hot_in_a_models_equations():
    program = tiny(
        ["y = x", "z = one_hot(i, vocab)"], inputs="  i: {shape: [batch], index: vocab}\n"
    ).program()
    assert output(program, "z").sum(-1).tolist() == [1.0, 1.0]


def test_sizes_can_be_overridden(wording: Wording):
    spec = load_spec("lesson6/simple_rnn")
    program = spec.program("training", hidden=7)
    assert count(program, program.parameters) == 86 * 42 + 42 * 7 + 7 * 7 + 7 + 7 * 86 + 86
    with wording.raises(SpecError, "'hiden' ... 'hidden'"):
        spec.program("training", hiden=7)
    for wrong in (0, -1, 2.5, True):
        with wording.raises(SpecError, "1"):
            spec.program("training", hidden=wrong)


def test_a_size_too_small_for_a_slice_is_refused(wording: Wording):
    spec = tiny(["y = x", "z = x[:, :, 3]"])
    assert output(spec.program(), "z").shape == (2, 3)
    with wording.raises(SpecError, "3"):
        spec.program("training", width=3)


def test_a_model_without_targets_has_no_loss():
    text = TINY.replace("INPUTS", "  x: {shape: [batch, time, width]}")
    text = text.replace("layers:\nLAYERS", "layers: {}").replace("EQUATIONS", "  y = 2 * x")
    text = text[: text.index("targets:")]
    spec = load_spec("tiny", overrides={("model", "tiny"): text})
    assert spec.program().loss is None
    assert spec.update is None


@pytest.mark.parametrize("kind", schema.KINDS)
def test_json_schema(kind):
    exported = schema.json_schema(kind)
    assert json.loads(json.dumps(exported)) == exported
    assert kind in exported["required"]
    assert exported["additionalProperties"] is False


def test_rules_of_other_optimizers(wording: Wording):
    spec = load_spec("lesson6/simple_rnn")
    assert spec.rule("sgd", learning_rate=0.5).attributes == {"learning_rate": 0.5}
    with wording.raises(SpecError, "'rate' ... 'sgd'"):
        spec.rule("sgd", rate=0.5)
    with wording.raises(UsageError, "'sdg' ... 'sgd'"):
        spec.rule("sdg")


def test_definitions_do_not_see_the_models_layers():
    """A layer that has the name of something inside a definition changes nothing there."""
    plain = tiny(["y = use(x)"], "{use: {layer: dense, units: width}}").program()
    named = tiny(["y = W(x)"], "{W: {layer: dense, units: width}}").program()
    assert [n.op for n in walk_nodes(plain.nodes)] == [n.op for n in walk_nodes(named.nodes)]
