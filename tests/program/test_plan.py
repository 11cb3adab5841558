"""Plans: the values of the programs that they are made of, at every size, with any operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fused_reference import REFERENCE
from sampling import sampled

from harness.backends.numpy.primitives import PRIMITIVES
from harness.checking.request import small_sizes
from harness.language.library import lesson6
from harness.language.model import load_spec
from harness.oracle.draw import draw
from harness.program.autodiff.differentiate import differentiate
from harness.program.fused import FUSED
from harness.program.ir import Port, Program, walk_nodes
from harness.program.plan import TOTAL, Plan, forward_plan, training_plan
from harness.program.primitives import TABLE
from harness.program.signature import result_ports
from harness.runtime.answers import Arguments
from harness.runtime.interpreter import Interpreter

Array = npt.NDArray[Any]
MODELS = lesson6()
# Fewer indices than rows and more, loops that are written out and one that is not.
SHAPES = sampled([(3, 2), (9, 4), (2, 35), (1, 1)], [(3, 2), (2, 35)])
OFFERS: Mapping[str, tuple[str, ...]] = {
    "primitives": (),
    "activations": ("sigmoid", "relu", "clip"),
    "all": tuple(FUSED),
}
RATE = 0.03


def program_of(model: str, phase: Any) -> Program:
    spec = load_spec(model)
    return spec.program(phase).with_sizes(**small_sizes(spec, {}))


def named(program: Program, material: Arguments) -> dict[str, Array]:
    """Arrays by the names that plans have for them."""
    groups = {"input": material.inputs, "target": material.targets, "state": material.state}
    groups["statistics"] = material.statistics
    return dict(material.parameters) | {
        f"{prefix}.{name}": array for prefix, some in groups.items() for name, array in some.items()
    }


def check_type(plan: Plan, value: int, array: Array) -> None:
    """A value is of the type that the plan says."""
    assert np.shape(array) == plan.shape(value)
    assert {"f": "float", "i": "index", "b": "bool"}[array.dtype.kind] == plan.types[value].kind


def run_plan(plan: Plan, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """A plan's outputs, walked in float64; every value is of the type that the plan says."""
    ops = {node.op for node in walk_nodes(plan.nodes)} & set(REFERENCE)
    table = {**PRIMITIVES, **{op: REFERENCE[op] for op in ops}}
    walker = Interpreter(
        table,
        plan.sizes,
        "float64",
        np.float64,
        watch=lambda value, array, _: check_type(plan, value, np.asarray(array)),
    )
    arranged = {**inputs, **{n: inputs[n].transpose(axes) for n, axes in plan.orders.items()}}
    env = walker.run(plan.nodes, {v: arranged[n] for n, v in plan.inputs.items()})
    return {n: np.asarray(env[v]) for n, v in plan.outputs.items()}


def walk(program: Program, sizes: Mapping[str, int], env: dict[int, Any]) -> dict[int, Any]:
    return Interpreter(PRIMITIVES, sizes, "float64", np.float64).run(program.nodes, env)


def environment(program: Program, arrays: Mapping[str, Array]) -> dict[int, Any]:
    ports = {"": program.parameters, "input.": program.inputs, "target.": program.targets}
    ports |= {"state.": program.state, "statistics.": program.statistics}
    return {p.value: arrays[prefix + p.name] for prefix, some in ports.items() for p in some}


def trained(
    program: Program, rule: Any, sizes: Mapping[str, int], arrays: Mapping[str, Array], step: float
) -> dict[str, Array]:
    """One training step of the program as it is: its gradient, then its rule by hand."""
    loss = Port("loss", result_ports(program, "step")["loss"])
    keep = result_ports(program, "step")
    derivative = differentiate(program, [loss], program.parameters, keep.values())
    env = environment(program, arrays) | {derivative.seeds[0].value: np.float64(1)}
    env = walk(derivative.program, sizes, env)
    results = {name: env[value] for name, value in keep.items()} | {"step": step + 1}
    for port, gradient in zip(program.parameters, derivative.gradients, strict=True):
        local: dict[int, Any] = {
            rule.parameter: arrays[port.name],
            rule.gradient: env[gradient.value],
            rule.step: np.float64(step),
            rule.learning_rate: np.float64(RATE),
        }
        local |= {slot.value: arrays[f"{slot.name}.{port.name}"] for slot in rule.slots}
        local = Interpreter(PRIMITIVES, {}, "float64", np.float64).run(rule.nodes, local)
        results[port.name] = local[rule.new_parameter]
        results |= {f"{s.name}.{port.name}": local[s.value] for s in rule.new_slots}
    return results


def slots_of(program: Program, rule: Any, seed: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        f"{slot.name}.{port.name}": random.uniform(0.1, 1, program.shape(port))
        for port in program.parameters
        for slot in rule.slots
    }


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        scale = max(float(np.max(np.abs(array))), 1e-300)
        assert np.max(np.abs(found[name] - array)) <= 1e-12 * scale, name


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize(("batch", "time"), SHAPES)
@pytest.mark.parametrize("model", MODELS)
def test_a_training_plan_is_the_programs_step(
    model: str, batch: int, time: int, offer: str
) -> None:
    program, rule = program_of(model, "training"), load_spec(model).update
    sizes = {**program.sizes, "batch": batch, "time": time}
    arrays = named(program, draw(program, batch, time, 5)) | slots_of(program, rule, 6)
    plan = training_plan(program, rule, sizes, "float64", OFFERS[offer], learning_rate=RATE)
    found = run_plan(plan, {**arrays, "step": np.asarray(4.0)})
    assert_same(found, trained(program, rule, sizes, arrays, 4.0))


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize(("batch", "time"), SHAPES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("moved", [True, False], ids=["moved", "in place"])
def test_a_forward_plan_is_the_programs_outputs(
    model: str, batch: int, time: int, offer: str, moved: bool
) -> None:
    program = program_of(model, "inference")
    sizes = {**program.sizes, "batch": batch, "time": time}
    arrays = named(program, draw(program, batch, time, 5))
    plan = forward_plan(program, sizes, "float64", OFFERS[offer], moved=moved)
    env = walk(program, sizes, environment(program, arrays))
    wanted = result_ports(program, "ends")
    assert_same(run_plan(plan, arrays), {name: env[value] for name, value in wanted.items()})


def test_losses_are_summed_where_they_are_to_be() -> None:
    program = program_of("lesson6/sequence_rnn", "training")
    rule, sizes = load_spec("lesson6/sequence_rnn").update, {**program.sizes, "batch": 3, "time": 4}
    arrays = named(program, draw(program, 3, 4, 5)) | slots_of(program, rule, 6)
    plan = training_plan(program, rule, sizes, "float64", (), learning_rate=RATE, total=True)
    assert plan.carried[TOTAL] == TOTAL
    given = {**arrays, "step": np.asarray(1.0), TOTAL: np.asarray(2.5)}
    found = run_plan(plan, given)
    assert float(found[TOTAL]) == 2.5 + float(found["loss"])


def operations(plan: Plan) -> set[str]:
    return {node.op for node in walk_nodes(plan.nodes)}


@pytest.mark.parametrize("model", MODELS)
def test_a_plan_holds_only_what_is_offered(model: str) -> None:
    program, rule = program_of(model, "training"), load_spec(model).update
    sizes = {**program.sizes, "batch": 9, "time": 35}
    known = {*TABLE, "constant", "scan"}
    for offer in OFFERS.values():
        plan = training_plan(program, rule, sizes, "float64", offer, learning_rate=RATE)
        assert operations(plan) <= known | set(offer)


def used_with(names: Iterable[str], model: str) -> set[str]:
    """The fused operations that both plans of a model use."""
    program, rule = program_of(model, "training"), load_spec(model).update
    sizes = {**program.sizes, "batch": 9, "time": 4}
    training = training_plan(program, rule, sizes, "float64", names, learning_rate=RATE)
    forward = forward_plan(program_of(model, "inference"), sizes, "float64", names)
    return (operations(training) | operations(forward)) & set(FUSED)


def test_the_fused_operations_are_found() -> None:
    common = {"addmm", "softmax"}
    relu, clip = {"relu", "relu_gradient"}, {"clip", "clip_gradient"}
    assert used_with(FUSED, "lesson6/sequence_rnn") == common | relu | {"scatter_add"}
    assert used_with(FUSED, "lesson6/keras_gru") == common | relu | clip
    assert used_with(FUSED, "lesson6/stateful_lstm") == common | clip | {
        "tanh_gradient",
        "scatter_add",
    }
    assert used_with(FUSED, "lesson6/theano_gru") == common | {"sigmoid", "sigmoid_gradient"}


def test_what_is_carried_replaces_inputs_of_its_type() -> None:
    program, rule = program_of("lesson6/stateful_lstm", "training"), load_spec(MODELS[0]).update
    sizes = {**program.sizes, "batch": 3, "time": 4}
    plan = training_plan(program, rule, sizes, "float64", (), learning_rate=RATE)
    assert set(plan.outputs) - set(plan.carried) == {"loss"}
    given = {name for name in plan.inputs if name.startswith(("input.", "target."))}
    assert set(plan.inputs) - set(plan.carried.values()) == given
    for output, input_ in plan.carried.items():
        assert plan.shape(plan.outputs[output]) == plan.shape(plan.inputs[input_])
    assert "step" in plan.carried
    assert "learning_rate" not in plan.inputs


def test_batches_are_taken_in_the_order_that_the_plan_reads_them_in() -> None:
    """Time-major; the counts of a normalisation read the same indices as the program has them."""
    program = program_of("lesson6/stateful_lstm", "training")
    rule, sizes = load_spec("lesson6/stateful_lstm").update, {"batch": 3, "time": 4}
    plan = training_plan(
        program, rule, {**program.sizes, **sizes}, "float64", (), learning_rate=RATE
    )
    assert plan.orders == {"input.chars": (1, 0), "target.target": (1, 0)}
    assert plan.shape(plan.inputs["input.chars"]) == (4, 3)
    given = [plan.inputs[name] for name in plan.orders]
    moved = [n for n in walk_nodes(plan.nodes) if n.op == "permute_dims" and n.inputs[0] in given]
    assert len(moved) == 1
    assert [n.op for n in walk_nodes(plan.nodes) if moved[0].output in n.inputs] == ["segment_sum"]


def test_nan_goes_through_what_an_equation_multiplies_by_zero(tmp_path: Path) -> None:
    text = (
        "model: zeros\nsummary: s\nsource: s\nsizes: {n: 2}\ninputs: {x: {shape: [batch, n]}}\n"
        "layers: {}\nequations: |\n  y = sign(x)\n  z = 1 + 0 * x\n"
    )
    (tmp_path / "zeros.yaml").write_text(text, encoding="utf-8")
    program = load_spec(str(tmp_path / "zeros.yaml")).program("inference")
    x = np.array([[np.nan, 3.0], [np.inf, -np.inf]])
    plan = forward_plan(program, {"n": 2, "batch": 2}, "float64", FUSED)
    with np.errstate(invalid="ignore"):
        found = run_plan(plan, {"input.x": x})
    np.testing.assert_array_equal(found["output.y"], np.sign(x))
    np.testing.assert_array_equal(np.isnan(found["output.z"]), [[True, False], [True, True]])
